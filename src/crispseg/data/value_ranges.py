"""Range of values of the 16-bit images in a split."""

from __future__ import annotations

from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.folders.facts import read_image_facts
from crispseg.folders.survey import read_facts
from crispseg.io.sampled_values import sampled_values, some_of
from crispseg.io.value_range import ValueRange, percentile_range


def known_range(dataset: SegmentationDataset) -> ValueRange | None:
    """Return the declared range of a split, or the range of a sample of its pixels; None for 8-bit images.

    Unreadable images are skipped, because `check_splits` reports them.
    """
    if not isinstance(dataset, FileDataset):
        return None
    if dataset.value_range is not None:
        return dataset.value_range
    facts, _ = read_facts("image", read_image_facts, some_of([pair.image for pair in dataset.pairs]))
    deep = [path for path, image in facts.items() if image.bit_depth > 8]
    values = sampled_values(deep, dataset.channels)
    return percentile_range(values) if values else None
