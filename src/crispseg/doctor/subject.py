"""What is examined: pairs of files, or samples, in splits, and what is declared about their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.dataset import DataSource, FileDataset, InstanceDataset, Pair, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.data.mask_lookup import IdLookup, MaskLookup
from crispseg.data.mask_reading import MaskReading, read_by, read_masks
from crispseg.data.mask_statistics import MaskStatistics
from crispseg.data.pairing import PairingFault, collected_faults
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet


@dataclass(frozen=True)
class Subject:
    """The data to examine."""

    source: DataSource
    splits: Mapping[str, Sequence[Pair] | SegmentationDataset]
    """Pairs of files; or data sets that are not made of files, which are gone through sample by sample."""
    known: tuple[LabelSet, MaskLookup] | None
    """What masks mean that are not the user's own; these are read by what they hold."""
    channels: int
    """Channels of the images that a model is given: 3, or 4 where a fourth one is wanted."""
    faults: tuple[PairingFault, ...]
    """What did not pair and so is in no split."""
    in_no_split: tuple[Path, ...]
    """Images beside the folders of the splits, or in no list."""
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
    with collected_faults() as faults:
        if own is None:
            source.label_set()  # raises
        elif own.declared.count is not None:
            own.declared.labels(own.declared.count)  # likewise
        for name in source.splits():
            try:
                found = own.pairs(name) if own else source.dataset(name)
                if len(found) == 0:
                    raise CrispsegError(f"the split '{name}' has no samples; check the data folders or lists")
            except CrispsegError as error:
                unavailable[name] = str(error)
                continue
            splits[name] = found
            if isinstance(found, SegmentationDataset):
                known = found.labels, IdLookup(len(found.labels))
                if isinstance(found, FileDataset) and not isinstance(found, InstanceDataset):
                    splits[name], known = found.pairs, (found.labels, found.lookup)
        unlisted = own.unlisted() if own and splits else []
    if not splits:
        if not faults:
            raise CrispsegError(next(iter(unavailable.values())))
        unavailable = {}  # nothing pairs; that is why
    return Subject(source, splits, known, channels, tuple(faults), tuple(unlisted), unavailable)
