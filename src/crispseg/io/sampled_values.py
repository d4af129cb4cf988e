"""Values of the 16-bit images among many files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.io.opening import opened
from crispseg.io.parallel import parallel, spread, tried
from crispseg.io.value_range import Limits, bit_depth_range, sampled

SAMPLED_IMAGES = 64  # maximum number of images to look at


def some_of(images: Sequence[Path]) -> list[Path]:
    """Return at most `SAMPLED_IMAGES` images, evenly spread."""
    return [images[index] for index in spread(len(images), SAMPLED_IMAGES)]


def sampled_values(images: Sequence[Path], channels: int, least_bits: int = 9) -> list[NDArray[np.uint16]]:
    """Return pixels of the images of at least this number of bits per channel that can be read."""

    def values_of(path: Path) -> NDArray[np.uint16] | None:
        with opened(path) as raster:
            return sampled(raster.numbers(channels)).copy() if raster.bit_depth >= least_bits else None

    samples = parallel(tried(values_of), images, "Looking for 16-bit images")
    return [sample for sample in samples if isinstance(sample, np.ndarray)]


def assumed_range(images: Sequence[Path], channels: int) -> Limits | None:
    """Return the range of the bits that the 16-bit images of a folder need, with one warning; None for 8-bit images.

    A model without a value range takes them so, and all images of the folder alike.
    """
    values = sampled_values(some_of(images), channels, least_bits=16)  # files that declare fewer bits need no range
    if not values:
        return None
    return bit_depth_range(values, images[0].parent)
