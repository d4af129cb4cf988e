"""What is examined: pairs of files, or samples, in splits, and what is declared about their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.dataset import DataSource, FileDataset, InstanceDataset, Pair, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.data.mask_lookup import IdLookup, MaskLookup
from crispseg.data.pairing import PairingFault, collected_faults
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet


@dataclass(frozen=True)
class Subject:
    """The data to examine."""

    source: DataSource
    splits: Mapping[str, Sequence[Pair] | SegmentationDataset]
    """Pairs of files; or data sets that are not made of files, which are gone through sample by sample."""
    labels: LabelSet | None
    """None where the classes have to be read off the masks."""
    lookup: MaskLookup | None
    """None likewise."""
    channels: int
    """Channels of the images that a model is given: 3, or 4 where a fourth one is wanted."""
    faults: tuple[PairingFault, ...]
    """What did not pair and so is in no split."""
    in_no_split: tuple[Path, ...]
    """Images beside the folders of the splits, or in no list."""
    unavailable: Mapping[str, str]
    """Splits that cannot be read at all, and why."""

    @property
    def own(self) -> bool:
        """Whether the masks are the user's own, whose values may mean anything."""
        return _own(self.source) is not None

    @property
    def ignore(self) -> tuple[int, ...]:
        """Mask values that mean ignore, where no class is declared."""
        return self.source.ignored_values if isinstance(self.source, Folder) and self.lookup is None else ()


def subject_of(source: DataSource, channels: int = 3) -> Subject:
    """All splits of a data source, without its first fault stopping it; for `channels` see `Subject`.

    Raises:
        CrispsegError: no split can be read, or the declared classes do not fit together.
    """
    own = _own(source)
    splits: dict[str, Sequence[Pair] | SegmentationDataset] = {}
    unavailable: dict[str, str] = {}
    with collected_faults() as faults:
        labels, lookup = (own.declared() or (None, None)) if own else (source.label_set(), None)
        for name in source.splits():
            try:
                found = own.pairs(name) if own else source.dataset(name)
                if len(found) == 0:
                    raise CrispsegError(f"the split '{name}' has no samples; check the data folders or lists")
            except CrispsegError as error:
                unavailable[name] = str(error)
                continue
            numbers = isinstance(found, InstanceDataset)  # of objects, which tell nothing about classes
            files = found if isinstance(found, FileDataset) and not numbers else None
            splits[name] = files.pairs if files else found
            if isinstance(found, SegmentationDataset):
                lookup = files.lookup if files else IdLookup(len(found.labels))
        unlisted = own.unlisted() if own and splits else []
    if not splits:
        if not faults:
            raise CrispsegError(next(iter(unavailable.values())))
        unavailable = {}  # nothing pairs; that is why
    return Subject(source, splits, labels, lookup, channels, tuple(faults), tuple(unlisted), unavailable)


def _own(source: DataSource) -> Folder | None:
    """The user's own masks; those that are made of instance masks are not."""
    return source if isinstance(source, Folder) and not source.of_instances else None
