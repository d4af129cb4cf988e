"""What is examined: pairs of files, or samples, in splits, and what is declared about their masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.data.base import DataSource, FileDataset, Pair, SegmentationDataset
from crispseg.data.decoders import Decoder, IdDecoder
from crispseg.data.folder import Folder
from crispseg.data.pairing import PairingFault, collected_faults
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet


@dataclass(frozen=True)
class Subject:
    """The data to examine."""

    name: str
    """The data source's."""
    splits: Mapping[str, tuple[Pair, ...] | SegmentationDataset]
    """Pairs of files; or data sets that are not made of files, which are gone through sample by sample."""
    labels: LabelSet | None
    """None where the classes have to be read off the masks."""
    decoder: Decoder | None
    """None likewise."""
    ignore: tuple[int, ...] = ()
    """Mask values that mean ignore, where no class is declared."""
    faults: tuple[PairingFault, ...] = ()
    """What did not pair and so is in no split."""
    in_no_split: tuple[str, ...] = ()
    """Images beside the folders of the splits, or in no list."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Splits that cannot be read at all, and why."""
    val_in_train: bool = False
    """Whether the user asked to train on the images of val too."""
    channels: int = 3
    """Channels of the images that a model is given: 3, or 4 where a fourth one is wanted."""

    @property
    def own(self) -> bool:
        """Whether the masks are the user's own, whose values may mean anything."""
        return self.name == Folder.name


def subject_of(source: DataSource, channels: int = 3) -> Subject:
    """All splits of a data source, without its first fault stopping it; for `channels` see `Subject`.

    Raises:
        CrispsegError: no split can be read, or the declared classes do not fit together.
    """
    labels: LabelSet | None = None
    decoder: Decoder | None = None
    if isinstance(source, Folder):
        labels, decoder = source.declared() or (None, None)
    else:
        labels = source.label_set()
    splits: dict[str, tuple[Pair, ...] | SegmentationDataset] = {}
    unavailable: dict[str, str] = {}
    unused: list[Path] = []
    with collected_faults() as faults:
        for name in source.splits():
            try:
                found = source.pairs(name) if isinstance(source, Folder) else source.dataset(name)
                if len(found) == 0:
                    raise CrispsegError(f"the split '{name}' has no samples; check the data folders or lists")
            except CrispsegError as error:
                unavailable[name] = str(error)
                continue
            if isinstance(found, FileDataset):
                splits[name], decoder = found.pairs, found.decode
            elif isinstance(found, SegmentationDataset):
                splits[name], decoder = found, IdDecoder(len(found.labels))
            else:
                splits[name] = tuple(found)
        if isinstance(source, Folder) and splits:
            unused = source.unlisted()
    if not splits:
        if not faults:
            raise CrispsegError(next(iter(unavailable.values())))
        unavailable = {}  # nothing pairs; that is why
    return Subject(
        source.name,
        splits,
        labels,
        decoder,
        source.ignored_values if isinstance(source, Folder) and decoder is None else (),
        _without_echoes(faults),
        tuple(map(str, unused)),
        unavailable,
        getattr(source, "train_on", "") == "trainval",
        channels,
    )


def _without_echoes(faults: list[PairingFault]) -> tuple[PairingFault, ...]:
    """An image that did not pair is not in the folder's list of names either; that is one fault, not two."""
    lonely = {Path(file).stem for kind, files in faults if kind != "listed-file-missing" for file in files}

    def echoes(entry: str) -> bool:
        name = Path(Path(entry.rpartition(": ")[2]).name)
        return not {name.name, name.stem}.isdisjoint(lonely)

    kept = (
        PairingFault(kind, tuple(file for file in files if kind != "listed-file-missing" or not echoes(file)))
        for kind, files in faults
    )
    return tuple(fault for fault in kept if fault.files)
