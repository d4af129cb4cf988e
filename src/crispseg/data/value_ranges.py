"""Range of values of the 16-bit images in a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.errors import CrispsegError
from crispseg.folders.facts import ImageFacts, read_image_facts
from crispseg.folders.survey import read_facts
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

    paths = [dataset.pairs[index].image for index in spread(len(dataset), SAMPLED_IMAGES)]
    facts = read_facts("image", read_image_facts, paths)
    deep = [path for path, image in facts.items() if isinstance(image, ImageFacts) and image.bit_depth > 8]

    def some_values(path: Path) -> NDArray[np.uint16]:
        with opened(path) as raster:
            return sampled(raster.numbers(dataset.channels)).copy()

    samples = parallel(tried(some_values), deep, "Measuring 16-bit images")
    values = [sample for sample in samples if not isinstance(sample, CrispsegError)]
    return percentile_range(values) if values else None
