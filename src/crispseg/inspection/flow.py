"""SFNet's semantic flow, in pixels and in the colours of optical flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.inspection.activations import Inspection
from crispseg.inspection.maps import at_image, flow_image


@dataclass(frozen=True, eq=False)
class Flow:
    """The semantic flow of one FAM.

    Args:
        part: path of the FAM in the model.
        title: such as "F5 → F4".
        pixels: `(2, h, w)`, x to the right and y downwards: where each pixel of the fine level looks, relative to
            itself, in pixels of that level (see `pixels_of_level`).
    """

    part: str
    title: str
    pixels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the fine level."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def longest(self) -> float:
        """Length of the longest vector, in pixels of the level."""
        return float(self.pixels.norm(dim=0).max())


def pixels_of_level(delta: Tensor, align_corners: bool = True) -> Tensor:
    """A FAM's tap `flow`, Δ `(2, h, w)`, in pixels of its fine level, `(2, h, w)` float32.

    `warp` moves a point by Δ / (w, h) in coordinates that run from -1, the centre of a level's first pixel, to 1, the
    centre of its last (`align_corners=True`): 2 of them are w - 1 and h - 1 pixels. So a pixel moves by Δ_x (w - 1) /
    2w and Δ_y (h - 1) / 2h, nearly half of Δ; and by just half if coordinates run from edge to edge.
    """
    if not align_corners:
        return delta.float() / 2
    height, width = delta.shape[-2:]
    factor = torch.tensor([(width - 1) / (2 * width), (height - 1) / (2 * height)])
    return delta.float() * factor[:, None, None]


def flows(inspection: Inspection) -> list[Flow]:
    """The flow of each FAM in the order in which they ran, from coarse to fine; empty for a model without FAMs."""
    found = []
    for part in inspection.of("fam"):
        pixels = pixels_of_level(inspection.tap(part, "flow"), inspection.align_corners)
        found.append(Flow(part, inspection.parts[part].title, pixels))
    return found


def pixel_pitch(size: tuple[int, int], inspection: Inspection) -> tuple[float, float]:
    """Pixels of the image from one pixel of a level of `size` (height, width) to the next, in x and in y.

    The centres of their corner pixels lie on each other (`Inspection.align_corners`), or their edges do.
    """
    (height, width), (rows, columns) = size, inspection.input_size
    if not inspection.align_corners:
        return columns / width, rows / height
    return (columns - 1) / max(width - 1, 1), (rows - 1) / max(height - 1, 1)


def flow_colors(flow: Flow, inspection: Inspection | None = None) -> NDArray[np.uint8]:
    """The flow as `flow_image`, `(h, w, 3)`.

    Args:
        flow: the flow to draw.
        inspection: draw at the size of its image: the field, not its colours, is interpolated (SFNet, §4.2).
    """
    return flow_image(flow.pixels if inspection is None else at_image(flow.pixels, inspection))
