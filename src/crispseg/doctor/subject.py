"""What is examined: pairs of files, or samples, in splits, and what is declared about their masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.data.base import DataSource, Decoder, FileDataset, IdDecoder, Pair, SegmentationDataset
from crispseg.data.folder import Folder, match
from crispseg.data.pairing import PairingFault, collected_faults
from crispseg.errors import CrispsegError
from crispseg.imaging import find_images
from crispseg.labels import LabelSet


@dataclass(frozen=True)
class Split:
    """One split."""

    name: str
    items: tuple[Pair, ...] | SegmentationDataset
    """Pairs of files; or a data set that is not made of files, which is gone through sample by sample."""
    decode: Decoder | None
    """None where the classes have to be read off the masks."""

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Subject:
    """The data to examine."""

    name: str
    """Of the data source."""
    splits: tuple[Split, ...]
    labels: LabelSet | None
    """None where the classes have to be read off the masks."""
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
    """Of the images that a model is given: 3, or 4 where a fourth one is wanted."""


def subject_of(
    source: DataSource, folders: Mapping[str, tuple[Path, Path]] | None = None, channels: int = 3
) -> Subject:
    """All splits of a data source, without its first fault stopping it.

    Args:
        source: the data.
        folders: for a `Folder`, the folders of images and masks of splits that it does not know.
        channels: see `Subject`.

    Raises:
        CrispsegError: no split can be read, or the declared classes do not fit together.
    """
    labels: LabelSet | None = None
    ignore: tuple[int, ...] = ()
    decode: Decoder | None = None
    if isinstance(source, Folder):
        declared = source.declared()
        if declared is None:
            ignore = source.ignored_values
        else:
            labels, decode = declared
    else:
        labels = source.label_set()
    splits, unavailable = [], {}
    unused: list[Path] = []
    with collected_faults() as faults:
        for name in folders or source.splits():
            try:
                if isinstance(source, Folder):
                    pairs = match(*folders[name]).values() if folders else source.pairs(name)
                    if not pairs:
                        raise CrispsegError(f"the split '{name}' has no pairs; check the data folders or lists")
                    splits.append(Split(name, tuple(pairs), decode))
                    continue
                dataset = source.dataset(name)
                if len(dataset) == 0:
                    raise CrispsegError(f"the split '{name}' has no samples; check the data folders or lists")
                if isinstance(dataset, FileDataset):
                    splits.append(Split(name, dataset.pairs, dataset.decode))
                else:
                    splits.append(Split(name, dataset, IdDecoder(len(dataset.labels))))
            except CrispsegError as error:
                unavailable[name] = str(error)
        if isinstance(source, Folder) and splits:
            used = [images for images, _ in (folders or {}).values()]
            unused = (
                [file for file in find_images(source.images) if not any(file.is_relative_to(one) for one in used)]
                if folders
                else source.unlisted()
            )
    if not splits:
        if not faults:
            raise CrispsegError(next(iter(unavailable.values())))
        unavailable = {}  # nothing pairs; that is why
    return Subject(
        source.name,
        tuple(splits),
        labels,
        ignore,
        _without_echoes(faults),
        tuple(map(str, unused)),
        unavailable,
        getattr(source, "train_on", "") == "trainval",
        channels,
    )


def _without_echoes(faults: list[PairingFault]) -> tuple[PairingFault, ...]:
    """An image that did not pair is not in the folder's list of names either; that is one fault, not two."""
    lonely = {Path(file).stem for kind, files in faults if kind != "listed-file-missing" for file in files}

    def stem(entry: str) -> str:
        return Path(entry.rpartition(": ")[2]).name

    kept = []
    for kind, files in faults:
        if kind == "listed-file-missing":
            files = tuple(file for file in files if not {stem(file), Path(stem(file)).stem} & lonely)
        if files:
            kept.append(PairingFault(kind, files))
    return tuple(kept)
