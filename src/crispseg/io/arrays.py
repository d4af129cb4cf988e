"""Conversion of arrays and tensors to images, and normalisation of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from crispseg.errors import CrispsegError
from crispseg.io.images import MOST_CHANNELS
from crispseg.io.opening import from_array

Values: TypeAlias = NDArray[Any] | Tensor  # an array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`

FORMS = "an array (H, W) or (H, W, C), C up to 16, or a tensor (C, H, W), of uint8, uint16 or floats from 0 to 1"


def image_array(image: Values) -> NDArray[Any]:
    """Return an image in the form of files: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, C)`, uint8 or uint16.

    Floats from 0 to 1 become uint8. Other types, shapes and ranges raise a CrispsegError.
    """
    values = _channels_last(image)
    if values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 1:  # NaN is neither
        values = np.rint(255 * values).astype(np.uint8)
    is_image = values.dtype in (np.uint8, np.uint16) and values.size and values.ndim in (2, 3)
    if is_image and (values.ndim == 2 or values.shape[2] <= MOST_CHANNELS):
        return values
    raise CrispsegError(f"a {values.dtype} array of shape {values.shape} is not an image; give {FORMS}")


def mask_array(mask: Values) -> NDArray[Any]:
    """Return a mask in the form of files: `(H, W)` uint8 or uint16 values, or `(H, W, 3)` uint8 RGB colours.

    Fully transparent pixels become 0. Other types, shapes and ranges raise a CrispsegError.
    """
    values = _channels_last(mask)
    if not values.size or values.ndim not in (2, 3):
        found = f"an array of shape {values.shape} is not a mask"
        raise CrispsegError(f"{found}; give (H, W) whole numbers from 0 to 65535, or (H, W, 3) uint8 colours")
    labels = from_array(values.astype(np.uint8) if values.dtype == bool else values, "the array").labels()
    return labels.astype(np.uint8) if labels.max() <= 0xFF else labels


def _channels_last(values: Values) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
        values = (values.permute(1, 2, 0) if values.ndim == 3 else values).numpy(force=True)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


class Normalize(v2.Transform):  # type: ignore[misc]
    """Normalisation of images: values are scaled from 0–255 to 0–1, minus mean, divided by std.

    Images `(..., in_chans, H, W)`, or `(..., 3, H, W)` RGB for one channel, become `(..., in_chans, H, W)` float32.

    Args:
        mean, std: one number per channel, on the scale 0 to 1.
        in_chans: channels of the model; 1 uses the mean of RGB and the averages of `mean` and `std`.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], in_chans: int = 3) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.mean, self.std = (255 * torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
        if in_chans == 1:
            self.mean, self.std = self.mean.mean(), self.std.mean()

    def reversed(self, images: Tensor) -> Tensor:
        """Return normalised images `(..., in_chans, H, W)` with values from 0 to 255 again."""
        return images * self.std.to(images.device) + self.mean.to(images.device)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        image = inpt.as_subclass(Tensor).float()
        if self.in_chans == 1:
            image = image.mean(dim=-3, keepdim=True)
        return (image - self.mean.to(image.device)).div_(self.std.to(image.device))
