"""Pairs too large to be decoded for one crop: of a TIFF that is stored in blocks, only those of a window are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crispseg.data.dataset import FileDataset, Sample, SegmentationDataset
from crispseg.data.mask_lookup import BORDER, InstanceLookup
from crispseg.data.transforms import Augment
from crispseg.errors import CrispsegError
from crispseg.io.images import side_factor
from crispseg.io.tiff import SUFFIXES, mask_window, open_tiff

LARGE = 2**22
"""Pixels from which on windows are read; smaller images are decoded as fast."""
CROPS_A_WINDOW = 16
"""Of a larger image than so many crops, an epoch sees as many windows as it holds as many crops."""
WINDOWS_AT_MOST = 64
STEPS_AT_LEAST = 2
"""In an epoch; of fewer images each is taken several times."""


@dataclass(frozen=True)
class LargePair:
    """A pair that is read window by window; see `Sample` for what it shares with one."""

    dataset: FileDataset
    index: int
    size: tuple[int, int]
    """`(H, W)`."""

    def window(self, top: int, left: int, height: int, width: int) -> Sample:
        """A part of it. Of a mask that is no TIFF in blocks all is decoded.

        Raises:
            CrispsegError: a file is broken, or the mask holds a value that means no class.
        """
        pair, bottom, right = self.dataset.pairs[self.index], top + height, left + width
        with open_tiff(pair.image, self.dataset.channels, self.dataset.value_range) as tiff:
            image = tiff.read(top, bottom, left, right)
        around = BORDER if isinstance(self.dataset.lookup, InstanceLookup) else 0  # which tells the classes of the rim
        above, before = min(top, around), min(left, around)
        rows = slice(top - above, min(bottom + around, self.size[0]))
        columns = slice(left - before, min(right + around, self.size[1]))
        mask = mask_window(pair.mask, rows.start, rows.stop, columns.start, columns.stop)
        if mask is None:
            mask = self.dataset.read_mask(self.index)[rows, columns]
        labels = self.dataset.decoded(self.index, mask)[above : above + height, before : before + width]
        return Sample(image, labels, pair.name)


def large_pair(dataset: SegmentationDataset, index: int) -> LargePair | None:
    """A pair of `LARGE` pixels or more whose image is a TIFF that rasterio reads in parts; None for any other."""
    if not isinstance(dataset, FileDataset) or dataset.pairs[index].image.suffix.lower() not in SUFFIXES:
        return None
    try:
        with open_tiff(dataset.pairs[index].image, dataset.channels) as tiff:
            return LargePair(dataset, index, tiff.size) if math.prod(tiff.size) >= LARGE and tiff.in_blocks else None
    except CrispsegError:  # no rasterio, or a kind of TIFF that Pillow alone reads
        return None


def times_an_epoch(augment: Augment, sizes: Sequence[tuple[int, int]], samples_a_step: int) -> list[int]:
    """How often an epoch takes each of some images of `(H, W)`, by `augment.repeat`.

    By auto, an image that holds more than `CROPS_A_WINDOW` crops gives a window for each such number of them, up to
    `WINDOWS_AT_MOST`; and all are taken so often that an epoch has `STEPS_AT_LEAST`.

    >>> times_an_epoch(Augment(crop=(512, 512)), [(8000, 8000), (600, 800)], 8)
    [15, 1]
    >>> times_an_epoch(Augment(crop=(512, 512)), [(600, 800)] * 3, 8)
    [6, 6, 6]
    """
    if augment.repeat != "auto":
        return [augment.repeat] * len(sizes)
    times = [1] * len(sizes)
    if augment.window is not None:
        room = CROPS_A_WINDOW * math.prod(augment.window)
        factors = [side_factor(size, augment.longer_side, augment.shorter_side) for size in sizes]
        areas = [math.prod(size) * factor**2 for size, factor in zip(sizes, factors, strict=True)]
        times = [min(max(int(area / room), 1), WINDOWS_AT_MOST) for area in areas]
    again = -(-STEPS_AT_LEAST * samples_a_step // sum(times))
    return [number * again for number in times]
