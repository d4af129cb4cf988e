"""Where the model looked for a pixel: its semantic flow, or the points that it sampled.

The only place of the demo that knows how flow and points are recorded; `crispseg.inspection` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from crispseg.inference.segmenter import Segmentation
from crispseg.inspection.flow import flows, pixel_pitch
from crispseg.inspection.points import sampled_points
from crispseg.inspection.quantities import PARTS, Inspection, Part, part_title
from crispseg.models.info import ModelInfo

NEEDED = {"flow", "offset", "modulation", "weights", "locations", "context_queries"}
"""Last names of the quantities that `flows` and `sampled_points` use; others would be copied from a GPU for nothing."""


@dataclass(frozen=True, eq=False)
class Look:
    """What one step does for one pixel. Positions and lengths are in pixels of the image, x to the right, y down."""

    title: str
    start: tuple[float, float]
    """The centre of the level's pixel that is nearest."""
    points: NDArray[np.float32]
    """`(N, 2)`: where it looks. A flow has one point, its vector's end."""
    weights: NDArray[np.float32]
    """`(N,)`, of the points."""
    vector: tuple[float, float] | None = None
    """Of a flow, in pixels of its level; None for points."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the alignment, for all pixels of its level: h rows, w columns, N points each."""

    title: str
    xs: NDArray[np.float32]
    """`(w,)`: where the columns are in the image."""
    ys: NDArray[np.float32]
    """`(h,)`: where the rows are."""
    points: NDArray[np.float32]
    """`(h, w, N, 2)` positions in the image; of a flow `(h, w, 1, 2)`."""
    weights: NDArray[np.float32] | None
    """`(h, w, N)`; None of a flow."""
    pitch: tuple[float, float] = (1.0, 1.0)
    """Pixels of the image to a pixel of the level, in x and in y."""

    def at(self, x: float, y: float) -> Look:
        """What it does for the pixel of its level that is nearest to a position in the image."""
        row, column = int(np.abs(self.ys - y).argmin()), int(np.abs(self.xs - x).argmin())
        start = float(self.xs[column]), float(self.ys[row])
        points = self.points[row, column]
        if self.weights is not None:
            return Look(self.title, start, points, self.weights[row, column])
        dx, dy = ((float(end) - begin) / pitch for end, begin, pitch in zip(points[0], start, self.pitch, strict=True))
        return Look(self.title, start, points, np.ones(1, np.float32), (dx, dy))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the level."""
        return len(self.ys), len(self.xs)

    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.points.nbytes + (0 if self.weights is None else self.weights.nbytes)


def steps_of(
    model: nn.Module,
    info: ModelInfo,
    taps: Mapping[str, Tensor],
    segmentation: Segmentation,
    input_size: tuple[int, int],
) -> tuple[Step, ...]:
    """The steps of the alignment in the order in which they ran; none for a model without flow and sampled points.

    Args:
        model: that ran.
        info: of the model.
        taps: what `crispseg.record` saw of the pass that made the segmentation, with its batch dimension of 1.
        segmentation: what came of it.
        input_size: height and width that the network saw: those of the image, or 32 where they are less.
    """
    height, width = segmentation.labels.shape
    inspection = Inspection(
        segmentation.name,
        info,
        (height, width),
        input_size,
        segmentation.image,
        np.zeros((info.num_classes, 0, 0), np.float32),  # nobody asks for probabilities
        segmentation.labels,
        taps={name: values[0].float().cpu() for name, values in taps.items() if name.rpartition(".")[2] in NEEDED},
        parts=_parts(model, taps),
    )
    found = []
    for flow in flows(inspection):
        rows, columns = flow.size
        pitch_x, pitch_y = pixel_pitch(flow.size, inspection)
        xs, ys = (np.arange(columns) * pitch_x).astype(np.float32), (np.arange(rows) * pitch_y).astype(np.float32)
        dx, dy = flow.pixels.numpy()  # (h, w) each
        ends = np.stack([xs + dx * pitch_x, ys[:, None] + dy * pitch_y], axis=-1)  # (h, w, 2)
        found.append(Step(flow.title, xs, ys, ends[:, :, None].astype(np.float32), None, (pitch_x, pitch_y)))
    for sampled in sampled_points(inspection):
        count = sampled.weights.shape[2] * sampled.weights.shape[3]
        rows, columns = len(sampled.ys), len(sampled.xs)
        points = sampled.xy.reshape(rows, columns, count, 2)  # (h, w, G · N, 2)
        found.append(Step(sampled.title, sampled.xs, sampled.ys, points, sampled.weights.reshape(rows, columns, count)))
    return tuple(found)


def _parts(model: nn.Module, taps: Mapping[str, Tensor]) -> dict[str, Part]:
    """The parts of the model that left something in `taps`, in that order."""
    modules = dict(model.named_modules())
    found: dict[str, Part] = {}
    for tap in taps:
        steps = tap.split(".")
        for end in range(1, len(steps)):
            path = ".".join(steps[:end])
            module = modules.get(path)
            if path not in found and isinstance(module, PARTS):
                found[path] = Part(type(module), part_title(model, path))
    return found
