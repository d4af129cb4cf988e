"""Feature maps and numbers as colours. All pictures are `(H, W, 3)` uint8 RGB, at the size of the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.utils import flow_to_image

from crispseg.inspection.activations import Inspection
from crispseg.nn import resize

HEAT = cv2.COLORMAP_TURBO
"""Colour map of features: blue is low, red is high ("larger values are denoted by hot colors", SFNet, Fig. 2)."""
SCALE = cv2.COLORMAP_VIRIDIS
"""Colour map of confidence, entropy and probabilities: dark is low, yellow is high."""


def at_image(values: Tensor, inspection: Inspection) -> Tensor:
    """A level's map `(C, h, w)` in the pixels of the image, `(C, H, W)`, as the decoders upsample it.

    Bilinear, by the model's `align_corners`.
    """
    height, width = inspection.size
    return resize(values[None], inspection.input_size, align_corners=inspection.align_corners)[0, :, :height, :width]


def scaled(
    values: NDArray[Any], low: float | None = None, high: float | None = None, colors: int = SCALE
) -> NDArray[np.uint8]:
    """Numbers `(H, W)` in a colour map of OpenCV, from `low` to `high`, by default from the least to the largest."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    share = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    levels = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, colors)[..., ::-1])


def flow_image(field: Tensor) -> NDArray[np.uint8]:
    """Vectors `(2, h, w)` in the optical-flow colour code (Baker et al.), as torchvision draws it, `(h, w, 3)`.

    Hue is the direction; saturation is the length, full at the longest vector of the field.
    """
    return np.ascontiguousarray(flow_to_image(field.contiguous()).permute(1, 2, 0).numpy())


def color_wheel(side: int = 96) -> NDArray[np.uint8]:
    """The legend of `flow_image`, `(side, side, 3)`: the colour of each direction and length; white outside."""
    steps = torch.linspace(-1, 1, side)
    field = torch.stack(torch.meshgrid(steps, steps, indexing="xy"))  # x, y
    return flow_image(field * (field.norm(dim=0) <= 1))


def mean_map(values: Tensor, inspection: Inspection) -> NDArray[np.float32]:
    """The mean over channels of a level `(C, h, w)`, as SFNet (Fig. 2) and DDSM (Fig. 4) show features."""
    mean: NDArray[np.float32] = at_image(values.mean(0, keepdim=True), inspection)[0].numpy()
    return mean
