"""What is examined, and one pass over each file, which leaves a few numbers and digests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crispseg.data.copies import ImageFacts, facts_of, image_facts
from crispseg.data.dataset import DataSource, FileDataset, Pair, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.data.loading import parallel
from crispseg.data.mask_lookup import (
    IdLookup,
    InstanceLookup,
    MaskLookup,
    MaskStatistics,
    read_statistics,
    statistics_of,
)
from crispseg.data.mask_reading import MaskReading, read_by, read_masks
from crispseg.data.pairing import PairingKind
from crispseg.data.split_check import spread
from crispseg.errors import CrispsegError
from crispseg.io.images import as_picture
from crispseg.io.opening import opened
from crispseg.labels import LabelSet


class Unreadable(NamedTuple):
    """Why a file gives no facts."""

    file: str
    code: str
    """That of the finding."""
    reason: str
    """The line that training would stop with."""


class PairFacts(NamedTuple):
    """One pair in a split."""

    split: str
    pair: Pair
    image: ImageFacts | Unreadable
    mask: MaskStatistics | Unreadable


def readable(facts: Sequence[PairFacts]) -> list[tuple[PairFacts, ImageFacts, MaskStatistics]]:
    """The pairs of which both files can be read, with the facts of each."""
    return [
        (one, one.image, one.mask)
        for one in facts
        if isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskStatistics)
    ]


def scan(subject: Subject, workers: int | None = None, most: float = math.inf) -> list[PairFacts]:
    """The facts of all pairs, split by split, in their order; if there are more than `most`, of evenly spaced ones."""
    facts: list[PairFacts] = []
    share = min(most / max(sum(map(len, subject.splits.values())), 1), 1)
    for split, items in subject.splits.items():
        title, chosen = f"Examining {split}", spread(len(items), math.ceil(share * len(items)))
        if isinstance(items, SegmentationDataset):
            sample = partial(_scan_sample, split, items)
            facts += parallel(sample, chosen, title, 1)  # they do not promise to be safe in threads
        else:
            some = [items[index] for index in chosen]
            facts += parallel(partial(_scan_pair, split, subject.channels), some, title, workers)
    return facts


def _scan_sample(split: str, dataset: SegmentationDataset, index: int) -> PairFacts:
    """The facts of a sample that is not made of files."""
    pixels, labels, name = dataset[index]
    image = facts_of(name, as_picture(pixels))
    return PairFacts(split, Pair(name, Path(name), Path(name)), image, statistics_of(labels, name))


def _scan_pair(split: str, channels: int, pair: Pair) -> PairFacts:
    image: ImageFacts | Unreadable
    mask: MaskStatistics | Unreadable
    try:
        with opened(pair.image) as raster:
            raster.check(channels)
        image = image_facts(pair.image)
    except CrispsegError as error:
        image = Unreadable(str(pair.image), getattr(error, "code", "channel-missing"), str(error))
    try:
        mask = read_statistics(pair.mask)
    except CrispsegError as error:
        code = getattr(error, "code", "unusable-mask")
        mask = Unreadable(str(pair.mask), "unusable-mask" if code == "value-range-unknown" else code, str(error))
    return PairFacts(split, pair, image, mask)


@dataclass(frozen=True)
class Subject:
    """The data to examine."""

    source: DataSource
    splits: Mapping[str, Sequence[Pair] | SegmentationDataset]
    """Pairs of files; or data sets that are not made of files, which are gone through sample by sample."""
    known: tuple[LabelSet, MaskLookup] | None
    """What masks mean that are not the user's own; these are read by what they hold."""
    channels: int
    """Channels of the images, see `read_image`."""
    faults: Mapping[PairingKind, Sequence[str]]
    """What did not pair and so is in no split."""
    unavailable: Mapping[str, str]
    """Splits that cannot be read at all, and why."""

    def reading(self, masks: Sequence[MaskStatistics]) -> MaskReading | None:
        """The meaning of masks; None if there are none."""
        if not masks:
            return None
        if self.known is not None:
            return read_by(*self.known, masks)
        assert isinstance(self.source, Folder)
        return read_masks(self.source.declared, masks)


def subject_of(source: DataSource, channels: int = 3) -> Subject:
    """All splits of a data source, without its first fault stopping it; for `channels` see `Subject`.

    Raises:
        CrispsegError: no split can be read, or the declared classes do not fit together.
    """
    own = source if isinstance(source, Folder) and not source.of_instances else None
    splits: dict[str, Sequence[Pair] | SegmentationDataset] = {}
    unavailable: dict[str, str] = {}
    known: tuple[LabelSet, MaskLookup] | None = None
    own.declared.labels(own.declared.count or 2) if own else source.label_set()  # raises
    for name in source.splits():
        try:
            found = own.pairs(name, strict=False) if own else source.dataset(name)
        except CrispsegError as error:
            unavailable[name] = str(error)
            continue
        splits[name] = found
        if isinstance(found, SegmentationDataset):
            known = found.labels, IdLookup(len(found.labels), remedy="correct the sample")
            if isinstance(found, FileDataset) and not isinstance(found.lookup, InstanceLookup):
                splits[name], known = found.pairs, (found.labels, found.lookup)
    faults = own.faults() if own else {}
    if not splits:
        if not any(faults.values()):
            raise CrispsegError(next(iter(unavailable.values())))
        unavailable = {}  # nothing pairs; that is why
    return Subject(source, splits, known, channels, faults, unavailable)
