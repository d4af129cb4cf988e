"""The chart of speed against accuracy (SFNet, Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError:
    raise CrispsegError("the chart needs matplotlib, which is not installed; run: pip install matplotlib") from None


def speed_figure(rows: Sequence[tuple[str, float, float]], *, unit: str = "images / s") -> NDArray[np.uint8]:
    """Speed against mIoU, `(440, 720, 3)` RGB.

    Args:
        rows: name, speed and mIoU in percent of each model, such as `crispseg benchmark` and `evaluate` measure.
        unit: of the speed.
    """
    drawing = Figure((7.2, 4.4), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(drawing), drawing.subplots()
    axes.scatter([speed for _, speed, _ in rows], [score for _, _, score in rows], color="#1e64ff", edgecolor="k")
    for name, speed, score in rows:
        axes.annotate(name, (speed, score), (6, 0), textcoords="offset points", va="center")
    axes.margins(0.15)
    axes.set(xlabel=f"speed, {unit}", ylabel="mIoU, %")
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
