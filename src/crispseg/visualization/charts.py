"""Charts, drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError

DPI = 100


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure.

    Args:
        width, height: pixels.

    Raises:
        CrispsegError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CrispsegError("charts need matplotlib: pip install 'crispseg[charts]'") from None
    return Figure((width / DPI, height / DPI), dpi=DPI)


def drawn(figure: Any) -> NDArray[np.uint8]:
    """The picture `(H, W, 3)`, RGB, with everything that was drawn inside or outside of the axes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return np.array(Image.open(file).convert("RGB"))
