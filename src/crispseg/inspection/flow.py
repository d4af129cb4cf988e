"""SFNet's semantic flow: in pixels, in the colours of optical flow, and as arrows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.inspection.maps import at_image, flow_image
from crispseg.inspection.quantities import Inspection

ARROW = (20, 20, 20)
SHIFT = 4
"""Bits behind the point of the coordinates that OpenCV draws at."""


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


def pixels_of_level(delta: Tensor, centred: bool = False) -> Tensor:
    """A FAM's tap `flow`, Δ `(2, h, w)`, in pixels of its fine level, `(2, h, w)` float32.

    `warp` moves a point by Δ / (w, h) in coordinates that run from -1, the centre of a level's first pixel, to 1, the
    centre of its last (`align_corners=True`): 2 of them are w - 1 and h - 1 pixels. So a pixel moves by Δ_x (w - 1) /
    2w and Δ_y (h - 1) / 2h, nearly half of Δ, which it is where coordinates run from edge to edge (`centred`).
    """
    if centred:
        return delta.float() / 2
    height, width = delta.shape[-2:]
    factor = torch.tensor([(width - 1) / (2 * width), (height - 1) / (2 * height)])
    return delta.float() * factor[:, None, None]


def flows(inspection: Inspection) -> list[Flow]:
    """The flow of each FAM in the order in which they ran, from coarse to fine; empty for a model without FAMs."""
    return [
        Flow(part, inspection.parts[part].title, pixels_of_level(inspection.tap(part, "flow"), inspection.centred))
        for part in inspection.of("fam")
    ]


def pixel_pitch(size: tuple[int, int], inspection: Inspection) -> tuple[float, float]:
    """Pixels of the image from one pixel of a level of `size` (height, width) to the next, in x and in y.

    The corner pixels of level and image lie on each other, as where the decoders upsample (`align_corners=True`), or
    their edges do (`Inspection.centred`).
    """
    (height, width), (rows, columns) = size, inspection.input_size
    if inspection.centred:
        return columns / width, rows / height
    return (columns - 1) / max(width - 1, 1), (rows - 1) / max(height - 1, 1)


def flow_colors(flow: Flow, inspection: Inspection | None = None) -> NDArray[np.uint8]:
    """The flow as `flow_image`, `(h, w, 3)`.

    Args:
        flow: the flow to draw.
        inspection: draw at the size of its image: the field, not its colours, is interpolated (SFNet, §4.2).
    """
    return flow_image(flow.pixels if inspection is None else at_image(flow.pixels, inspection))


def arrows(flow: Flow, inspection: Inspection, *, count: int = 24, zoom: int = 2) -> tuple[NDArray[np.uint8], int]:
    """The flow as arrows on the paled image (SFNet, Fig. 5e).

    An arrow starts at a pixel of the fine level and points to where that pixel looks in the coarse level.

    Args:
        flow: the flow to draw.
        inspection: the inspection that it comes from.
        count: arrows along the longer side.
        zoom: pixels of the picture a pixel of the image.

    Returns:
        `(zoom · H, zoom · W, 3)`, and how many times longer than true the arrows are: a power of two, so that the
        longest reaches to the next arrow's place.
    """
    height, width = inspection.size
    paled = (255 - (255 - inspection.image.astype(np.uint16)) * 2 // 5).astype(np.uint8)
    picture = np.asarray(cv2.resize(paled, (width * zoom, height * zoom), interpolation=cv2.INTER_LINEAR), np.uint8)
    field = at_image(flow.pixels, inspection).numpy()
    pitch_x, pitch_y = pixel_pitch(flow.size, inspection)
    spacing = max(height, width) / count
    longest = float(np.hypot(field[0] * pitch_x, field[1] * pitch_y).max())
    scale = 2 ** max(0, math.ceil(math.log2(spacing / longest))) if 0 < longest < spacing else 1
    for y in np.arange(spacing / 2, height - 0.5, spacing):
        for x in np.arange(spacing / 2, width - 0.5, spacing):
            dx, dy = field[:, round(y), round(x)]
            middle = np.array([round(x), round(y)])
            ends = (middle, middle + scale * np.array([dx * pitch_x, dy * pitch_y]))
            start, end = (np.rint(((place + 0.5) * zoom - 0.5) * 2**SHIFT).astype(int).tolist() for place in ends)
            cv2.arrowedLine(picture, start, end, ARROW, 1, cv2.LINE_AA, SHIFT, 0.3)
    return picture, scale
