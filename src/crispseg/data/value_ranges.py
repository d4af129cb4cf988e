"""Range of values of the 16-bit images in a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.io.opening import opened
from crispseg.io.parallel import parallel, spread, tried
from crispseg.io.value_range import ValueRange, percentile_range, sampled

SAMPLED_IMAGES = 64  # maximum number of images to look at, evenly spread over the split


def known_range(dataset: SegmentationDataset) -> ValueRange | None:
    """Return the declared range of a split, or the range of a sample of its pixels; None for 8-bit images.

    Unreadable images are skipped, because `check_splits` reports them.
    """
    if not isinstance(dataset, FileDataset):
        return None
    if dataset.value_range is not None:
        return dataset.value_range

    def some_values(index: int) -> NDArray[np.uint16] | None:
        with opened(dataset.pairs[index].image) as raster:
            return sampled(raster.numbers(dataset.channels)).copy() if raster.bit_depth > 8 else None

    found = parallel(tried(some_values), spread(len(dataset), SAMPLED_IMAGES), "Looking for 16 bits")
    kept = [values for values in found if isinstance(values, np.ndarray)]
    return percentile_range(kept) if kept else None
