"""Feature maps and numbers as colours. All pictures are `(H, W, 3)` uint8 RGB, at the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
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


def pca_maps(features: Sequence[Tensor], inspection: Inspection) -> list[NDArray[np.uint8]]:
    """The three principal components of levels `(C, h, w)`, C ≥ 3, as red, green and blue, at the size of the image.

    Pixels of similar features have similar colours, in all of these pictures; the colours themselves mean nothing. Each
    component runs from its 2nd to its 98th percentile over all pictures.
    """
    covariance = torch.cov(torch.cat([values.flatten(1) for values in features], dim=1).double())
    axes = torch.linalg.eigh(covariance)[1][:, -3:].flip(1).T.float()  # the largest eigenvalue comes last
    components = [at_image(torch.einsum("ac,chw->ahw", axes, values), inspection).numpy() for values in features]
    low, high = np.percentile(np.stack(components), (2, 98), axis=(0, 2, 3))[..., None, None]
    shares = [np.clip((each - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1) for each in components]
    return [np.ascontiguousarray(np.rint(share * 255).astype(np.uint8).transpose(1, 2, 0)) for share in shares]


def direction_colors(direction: NDArray[np.uint8], boundary: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The predicted direction to the inside of each likely boundary pixel in the flow's colours; others are white."""
    angle = direction * (np.pi / 4)
    field = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32) * (boundary > 0.5)  # (2, H, W)
    return flow_image(torch.from_numpy(field))
