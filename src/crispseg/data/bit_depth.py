"""The range of values of images of more than 8 bits a channel, where nobody has declared it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.data.loading import parallel
from crispseg.errors import CrispsegError
from crispseg.io.images import deep_values
from crispseg.io.value_range import PERCENTILES, ValueRange, percentile_range

IMAGES = 64
"""Images that are looked at, at most, evenly spread over the split."""
PIXELS = 2**16
"""Pixels of an image that count, at most."""


def known_range(dataset: SegmentationDataset) -> ValueRange | None:
    """The declared range of a split, else that of a sample of its pixels; None where the images have 8 bits.

    Images that cannot be read are passed over: `check_split` tells of them.
    """
    if not isinstance(dataset, FileDataset):
        return None
    if dataset.value_range is not None:
        return dataset.value_range
    chosen = np.linspace(0, len(dataset) - 1, min(IMAGES, len(dataset))).round().astype(int).tolist()
    files = [dataset.pairs[index].image for index in chosen]
    some = functools.partial(_some_values, dataset.channels)
    found = [values for values in parallel(some, files, "Looking for 16 bits") if values is not None]
    return percentile_range(found) if found else None


def range_line(dataset: SegmentationDataset, value_range: ValueRange) -> str:
    """What is said about the range of a split before training."""
    declared = isinstance(dataset, FileDataset) and dataset.value_range is not None
    low, high = value_range
    source = "as data.value_range says" if declared else f"{PERCENTILES[0]:g} % to {PERCENTILES[1]:g} % of pixels"
    return (
        f"images are 16-bit with values from {low:g} to {high:g} ({source}): these are scaled to 0 to 1, in training "
        "and by the model ever after"
    )


def _some_values(channels: int, path: Path) -> NDArray[np.uint16] | None:
    """`PIXELS` of an image of 16 bits a channel, on a grid."""
    try:
        values = deep_values(path, channels)
    except CrispsegError:
        return None
    if values is None:
        return None
    step = int(np.ceil((values.shape[0] * values.shape[1] / PIXELS) ** 0.5))
    return values[::step, ::step].copy()
