"""Subject of an examination, and facts about its files from one pass over each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crispseg.data.copies import MOST_COMPARED, image_facts
from crispseg.data.dataset import DataSource, FileDataset, SegmentationDataset
from crispseg.data.folder import Folder
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
from crispseg.errors import CrispsegError
from crispseg.folders.facts import ImageFacts
from crispseg.folders.facts import image_facts as facts_of
from crispseg.folders.survey import Pair
from crispseg.io.images import as_picture, image_size
from crispseg.io.parallel import parallel, spread, tried
from crispseg.labels import LabelSet


class PairScan(NamedTuple):
    """Facts of a pair in a split, or the error of a file that training would refuse."""

    split: str
    pair: Pair
    image: ImageFacts | CrispsegError
    mask: MaskStatistics | CrispsegError


def readable(facts: Sequence[PairScan]) -> list[tuple[PairScan, ImageFacts, MaskStatistics]]:
    """Return the pairs with two readable files, and the facts of both."""
    return [
        (one, one.image, one.mask)
        for one in facts
        if isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskStatistics)
    ]


def scan(subject: Subject, workers: int | None = None, sampled: bool = False) -> list[PairScan]:
    """Return the facts of all pairs, split by split in order, or of `MOST_COMPARED` evenly spaced pairs."""
    facts: list[PairScan] = []
    share = min(MOST_COMPARED / max(sum(map(len, subject.splits.values())), 1), 1) if sampled else 1
    for split, items in subject.splits.items():
        title, chosen = f"Examining {split}", spread(len(items), math.ceil(share * len(items)))
        if isinstance(items, SegmentationDataset):
            facts += parallel(partial(_scan_sample, split, items), chosen, title, 1)  # may not be safe in threads
        else:
            some = [items[index] for index in chosen]
            facts += parallel(partial(_scan_pair, split, subject.channels), some, title, workers)
    return facts


def _scan_sample(split: str, dataset: SegmentationDataset, index: int) -> PairScan:
    pixels, labels, name = dataset[index]
    image = facts_of(name, as_picture(pixels))
    return PairScan(split, Pair(name, Path(name), Path(name)), image, statistics_of(labels, name))


def _scan_pair(split: str, channels: int, pair: Pair) -> PairScan:
    def checked_image(path: Path) -> ImageFacts:
        image_size(path, channels)  # raises an error for other channels
        return image_facts(path)

    return PairScan(split, pair, tried(checked_image)(pair.image), tried(read_statistics)(pair.mask))


@dataclass(frozen=True)
class Subject:
    """Data to examine."""

    source: DataSource
    splits: Mapping[str, Sequence[Pair] | SegmentationDataset]
    """Pairs of files, or data sets without files, which are read sample by sample."""
    known: tuple[LabelSet, MaskLookup] | None
    """Meaning of the masks of public data; None for custom data, whose masks are read by content."""
    channels: int
    """Number of channels of the images, see `read_image`."""
    faults: Mapping[PairingKind, Sequence[str]]
    """Unpaired files and list entries, which are in no split."""
    unavailable: Mapping[str, str]
    """Unreadable splits, and why."""

    def reading(self, masks: Sequence[MaskStatistics]) -> MaskReading | None:
        """Return the meaning of masks; None if there are none."""
        if not masks:
            return None
        if self.known is not None:
            return read_by(*self.known, masks)
        assert isinstance(self.source, Folder)
        return read_masks(self.source.declared, masks)


def subject_of(source: DataSource, channels: int = 3) -> Subject:
    """Return all splits of a data source despite faults; see `Subject` for `channels`."""
    own = source if isinstance(source, Folder) and not source.of_instances else None
    splits: dict[str, Sequence[Pair] | SegmentationDataset] = {}
    unavailable: dict[str, str] = {}
    known: tuple[LabelSet, MaskLookup] | None = None
    own.declared.labels(own.declared.count or 2) if own else source.label_set()  # may raise
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
    if not splits and not any(faults.values()):
        raise CrispsegError(next(iter(unavailable.values())))
    return Subject(source, splits, known, channels, faults, unavailable if splits else {})  # the faults say why
