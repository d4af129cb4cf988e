"""Value ranges of images: the values that become black and white.

The range is declared or measured on the training images, or on each image, and is part of the model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from threading import Event
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError, CrispsegWarning

Limits: TypeAlias = tuple[float, float]  # values that become black and white; other values are clipped
ValueRange: TypeAlias = Limits | Literal["image"]  # "image" measures the limits of each image, also of 8 bits

PERCENTILES = (0.1, 99.9)  # percentiles of the pixel values of several images that limit a measured range
OF_IMAGE = (1, 99.8)  # percentiles of an image, as in StarDist (Schmidt et al., MICCAI 2018)
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras
PIXELS = 2**16  # maximum number of sampled pixels of an image

_warned = Event()


def to_8_bits(values: NDArray[np.uint8 | np.uint16], limits: Limits) -> NDArray[np.uint8]:
    """Scale values of up to 16 bits, of any shape, such that `limits` become 0 and 255."""
    low, high = limits
    table: NDArray[np.uint8] = np.rint(((np.arange(2**16) - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    return table.take(values)


def bit_depth_range(values: Iterable[NDArray[np.uint16]], name: object) -> Limits:
    """Return the range of the smallest bit depth of cameras for images of 16 bits, without single bright pixels.

    It warns once per process, with the `name` of the images.
    """
    brightest = max(float(np.percentile(sample, OF_IMAGE[1])) for sample in values)
    white = next(2**depth - 1 for depth in BIT_DEPTHS if brightest < 2**depth)
    if not _warned.is_set():
        _warned.set()
        warnings.warn(
            f"{name} has 16-bit values up to about {brightest:.0f}, and the model has no value range for them: 0 to "
            f"{white} is assumed; to change it, give value_range, such as '[0,{max(brightest, 1):.0f}]'",
            CrispsegWarning,
            stacklevel=3,
        )
    return 0, white


def sampling_step(height: int, width: int) -> int:
    """Return the distance of sampled rows and columns of an image, of which at most about `PIXELS` are sampled."""
    return math.ceil(math.sqrt(height * width / PIXELS))


def sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Return evenly spread pixels of an image `(H, W, C)`."""
    step = sampling_step(*values.shape[:2])
    return values[::step, ::step]


def percentile_range(values: Iterable[NDArray[Any]], percentiles: tuple[float, float] = PERCENTILES) -> Limits:
    """Return the integer range between two percentiles of the pixels of images."""
    low, high = np.percentile(np.concatenate([sample.ravel() for sample in values]), percentiles)
    return float(np.floor(low)), float(max(np.ceil(high), np.floor(low) + 1))


def check_range(value_range: ValueRange | Literal["auto"] | None, key: str) -> None:
    """Raise a CrispsegError if the declared range of setting `key` is invalid."""
    low, high = (0, 0xFFFF) if value_range is None or isinstance(value_range, str) else value_range
    if not 0 <= low < high <= 0xFFFF:
        raise CrispsegError(f"{key} is [{low:g}, {high:g}]; give black and white, such as [0, 4095]")
