"""Feature maps and numbers as colours; all pictures are `(H, W, 3)` uint8 RGB, at the size of the image."""

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

HEAT = cv2.COLORMAP_TURBO  # colour map of features: blue is low, red is high, as in SFNet's Fig. 2 ("hot colors")
SCALE = cv2.COLORMAP_VIRIDIS  # colour map of confidence, entropy and probabilities: dark is low, yellow is high


def at_image(values: Tensor, inspection: Inspection) -> Tensor:
    """Upsample a level's map `(C, h, w)` to the image, `(C, H, W)`, in the same way as the decoders.

    It is bilinear and uses the model's `align_corners`.
    """
    height, width = inspection.size
    return resize(values[None], inspection.input_size, align_corners=inspection.align_corners)[0, :, :height, :width]


def scaled(values: NDArray[Any], low: float, high: float, colors: int = SCALE) -> NDArray[np.uint8]:
    """Colour numbers `(H, W)` by an OpenCV colour map from `low` to `high`; if both are equal, all are low."""
    share = (values - low) / max(high - low, 1e-30)
    levels = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, colors)[..., ::-1])


def flow_image(field: Tensor) -> NDArray[np.uint8]:
    """Draw vectors `(2, h, w)` in torchvision's optical-flow colour code (Baker et al.), `(h, w, 3)`.

    Hue is the direction; saturation is the length, relative to the longest vector of the field.
    """
    return np.ascontiguousarray(flow_to_image(field.contiguous()).permute(1, 2, 0).numpy())


def color_wheel() -> NDArray[np.uint8]:
    """Draw the legend of `flow_image`, `(96, 96, 3)`: a colour for each direction and length, white outside."""
    steps = torch.linspace(-1, 1, 96)
    field = torch.stack(torch.meshgrid(steps, steps, indexing="xy"))  # x, y
    return flow_image(field * (field.norm(dim=0) <= 1))


def mean_map(values: Tensor, inspection: Inspection) -> NDArray[np.float32]:
    """Return the mean over channels of a level `(C, h, w)`; SFNet (Fig. 2) and DDSM (Fig. 4) show features this way."""
    return np.asarray(at_image(values.mean(0, keepdim=True), inspection)[0])
