"""Conversion of arrays and tensors to images, and normalisation of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from crispseg.errors import CrispsegError
from crispseg.io.images import MAX_CHANNELS
from crispseg.io.opening import CUT, from_array
from crispseg.io.tiff_reading import MAX_PIXELS
from crispseg.labels import IGNORE

Values: TypeAlias = NDArray[Any] | Tensor  # an array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`

FORMS = "an array (H, W) or (H, W, C), C up to 16, or a tensor (C, H, W), of uint8, uint16 or floats from 0 to 1"


def image_array(image: Values) -> NDArray[Any]:
    """Return an image in the form of files: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, C)`, uint8 or uint16.

    Floats from 0 to 1 become uint8, and masked pixels 0. Other types, shapes and ranges raise a CrispsegError.
    """
    values = plain_array(image, masked=0)
    in_shape = values.size and values.ndim in (2, 3) and values.shape[2:] <= (MAX_CHANNELS,)
    if in_shape and values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:  # NaN is neither
        values = np.rint(255 * values).astype(np.uint8)
    if not in_shape or values.dtype not in (np.uint8, np.uint16):
        raise CrispsegError(f"a {values.dtype} array of shape {values.shape} is not an image; give {FORMS}")
    return values


def mask_array(mask: Values) -> NDArray[Any]:
    """Return a mask in the form of files: `(H, W)` uint8 or uint16 values, or `(H, W, 3)` uint8 RGB colours.

    Fully transparent pixels become 0, and masked ids 255 (ignore). Other types, shapes and ranges raise a
    CrispsegError, and so do masked colours.
    """
    values = plain_array(mask, masked=IGNORE)
    values = values.astype(np.uint8) if values.dtype == bool else values
    if not values.size or values.ndim not in (2, 3):
        content = f"an array of shape {values.shape} is not a mask"
        raise CrispsegError(f"{content}; give (H, W) whole numbers from 0 to 65535, or (H, W, 3) uint8 colours")
    if values.ndim == 3 and np.ma.is_masked(mask):
        raise CrispsegError("a masked array of colours has no colour for masked pixels; give class ids (H, W)")
    labels = from_array(values, "the array").labels()
    return labels.astype(np.uint8) if labels.max() <= 0xFF else labels


def plain_array(values: Values, masked: int) -> NDArray[Any]:
    """Return values as a plain array in native byte order, channels last.

    Masked values of NumPy's masked arrays become `masked`. No other function handles subclasses of arrays. More than
    `MAX_PIXELS` raise a CrispsegError.
    """
    if math.prod(values.shape[-2:] if isinstance(values, Tensor) else values.shape[:2]) > MAX_PIXELS:
        raise CrispsegError(f"an array of shape {tuple(values.shape)} has more than {MAX_PIXELS:,} pixels; {CUT}")
    if isinstance(values, Tensor):
        numbers = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
        values = (numbers.permute(1, 2, 0) if numbers.ndim == 3 else numbers).numpy(force=True)
    if isinstance(values, np.ma.MaskedArray):
        dtype = np.promote_types(values.dtype, np.uint8) if masked else values.dtype  # booleans and int8 have no 255
        values = np.ma.filled(values.astype(dtype), masked)
    plain = np.asarray(values)  # without subclasses, such as np.matrix
    plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    return plain[..., 0] if plain.ndim == 3 and plain.shape[2] == 1 else plain


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
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = 255 * torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        if in_chans == 1:
            self.mean, self.std = self.mean.mean(), self.std.mean()

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Normalise the pixels `(H, W, C)` uint8 of a file to `(1, in_chans, H, W)` float32 in the same layout.

        Each row is one dimension, because a loop over the channels of each pixel takes several times as long. It is
        computed in place, because new memory takes longer than the arithmetic.
        """
        values = pixels.float()
        if self.in_chans == 1:
            values = values.mean(dim=-1, keepdim=True)
        width = values.shape[1]
        mean, std = (channels.flatten().repeat(width).to(values.device) for channels in (self.mean, self.std))
        rows = values.flatten(1).sub_(mean).div_(std)
        return rows.view(1, *values.shape).permute(0, 3, 1, 2)

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
