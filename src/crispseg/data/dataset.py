"""Interfaces of data sources and of datasets of labelled images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegError
from crispseg.folders.facts import MaskFacts
from crispseg.folders.lookup import MAX_NUMBER, InstanceLookup, MaskLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.survey import Pair
from crispseg.io.images import image_channels, read_image, read_mask
from crispseg.io.sampled_values import sampled_values, some_of
from crispseg.io.value_range import ValueRange, percentile_range
from crispseg.labels import LabelSet
from crispseg.licences import NOT_STATED, Licence


class Sample(NamedTuple):
    """One labelled image."""

    image: NDArray[np.uint8]
    """`(H, W, C)` with the channels of `read_image`, such as 3 for RGB."""
    labels: NDArray[np.uint8]
    """`(H, W)` class ids; 255 means ignore."""
    name: str
    """Unique in the split and usable as a file stem; may contain "/" for sub-folders."""

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)`."""
        return self.labels.shape[0], self.labels.shape[1]

    def window(self, top: int, left: int, height: int, width: int) -> Sample:
        """Return a part of the sample, as views."""
        part = slice(top, top + height), slice(left, left + width)
        return Sample(self.image[part], self.labels[part], self.name)


class SegmentationDataset(Dataset[Sample], ABC):
    """Samples of one split and their classes."""

    labels: LabelSet
    pairs: Sequence[Pair] = ()
    """Its files, in the order of the indices; empty if the samples are not files."""
    channels: int = 3
    """Channels of its images; see `crispseg.io.images.read_image`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def name_of(self, index: int) -> str:
        """Return the name of a sample, if possible without reading it."""
        return self[index].name

    def read_labels(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids `(H, W)` of a sample, if possible without its image. Raises like `__getitem__`."""
        return self[index].labels

    def instances(self, name: str) -> NDArray[np.int32] | None:
        """Return the object numbers `(H, W)` of the sample of this name; 0 is background.

        Return None if the data have no object numbers.
        """
        return None

    def known_range(self) -> ValueRange | None:
        """Return the declared range of 16-bit files, or the range of a sample of their pixels; None for 8 bits."""
        return None

    def with_channels(self, in_chans: int, value_range: ValueRange | None = None) -> SegmentationDataset:
        """Return this split with the `image_channels` that a model with `in_chans` needs.

        Values of 16-bit files are scaled from `value_range`, if it is given.

        Raises:
            CrispsegError: the number of channels is not supported, or the split has only RGB images.
        """
        if image_channels(in_chans) != 3:
            raise CrispsegError(f"in_chans is {in_chans}, but these data are RGB images; give 3")
        return self


@dataclass(eq=False, repr=False)
class FileDataset(SegmentationDataset):
    """Split of image files and mask files.

    Args:
        pairs: the files, in the order of the indices.
        lookup: converts the mask values of a file to class ids.
        channels: channels of the images; see `read_image`.
        value_range: value range of 16-bit images, see `read_image`; None if it is not known yet.
        numbered: name of a pair → its instance mask; by default the masks of an `InstanceLookup`, otherwise none.
    """

    pairs: Sequence[Pair] = field()  # required, unlike in the base class
    labels: LabelSet
    lookup: MaskLookup
    channels: int = 3
    value_range: ValueRange | None = None
    numbered: Mapping[str, Path] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.lookup, InstanceLookup):
            self.numbered = {pair.name: pair.mask for pair in self.pairs}

    def with_channels(self, in_chans: int, value_range: ValueRange | None = None) -> Self:
        seen = copy(self)
        seen.channels, seen.value_range = image_channels(in_chans), value_range or self.value_range
        return seen

    def known_range(self) -> ValueRange | None:
        if self.value_range is not None:
            return self.value_range
        # Unreadable images are skipped, because `check_splits` reports them.
        values = sampled_values(some_of([pair.image for pair in self.pairs]), self.channels)
        return percentile_range(values) if values else None

    def name_of(self, index: int) -> str:
        return self.pairs[index].name

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            CrispsegError: a file is broken, the two sizes differ, the image lacks a channel, or the mask contains a
                value without a class.
        """
        pair = self.pairs[index]
        image = read_image(pair.image, self.channels, value_range=self.value_range)
        labels = self.read_labels(index)
        if image.shape[:2] != labels.shape:
            mask, picture = (f"{height}x{width}" for height, width in (labels.shape, image.shape[:2]))
            sizes = f"{pair.mask} is {mask} (height x width) but its image {pair.image} is {picture}"
            raise CrispsegError(f"{sizes}; resize one of them, a mask with nearest-neighbour interpolation")
        return Sample(image, labels, pair.name)

    def instances(self, name: str) -> NDArray[np.int32] | None:
        """Read the object numbers of a sample from a file, see `SegmentationDataset.instances`.

        Raises:
            CrispsegError: the file is missing or broken, or contains colours or numbers outside 0 to `MAX_NUMBER`.
        """
        if self.numbered is None:
            return None
        return _decoded(InstanceLookup.numbers, self.numbered[name], read_mask(self.numbered[name], MAX_NUMBER))

    def read_labels(self, index: int) -> NDArray[np.uint8]:
        file, lookup = self.pairs[index].mask, self.lookup
        return _decoded(lookup, file, lookup.read(file))


def _decoded(decode: Callable[[NDArray[Any]], NDArray[Any]], file: Path, mask: NDArray[Any]) -> NDArray[Any]:
    try:
        return decode(mask)
    except ValueError as error:
        raise CrispsegError(f"{file}: {error}") from None


class DataSource(ABC):
    """Source of splits: a dataclass whose fields are its settings, registered in `DATA_SOURCES`."""

    name: ClassVar[str]
    """Value of `data.name`."""

    @abstractmethod
    def label_set(self) -> LabelSet:
        """Return names and colours of the classes."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return the available splits among "train", "val" and "test"."""

    @abstractmethod
    def dataset(self, split: str) -> SegmentationDataset:
        """Return one split; an error reports missing files."""

    # The rest is for sources whose settings leave something open, such as custom data.

    inferred: ClassVar[bool] = False
    """Whether the places of files, and the meaning of masks, may have to be inferred from the files."""

    @property
    def ledger_entry(self) -> Licence:
        """Licence of the data, for the ledger of models that are trained on them."""
        if entry := catalogue().get(self.name):
            return Licence("data", self.name, entry.licence, entry.home)
        place = getattr(self, "root", None) or getattr(self, "images", None) or ""
        return Licence("data", self.name, getattr(self, "licence", None) or NOT_STATED, Path(place).name)

    @property
    def of_instances(self) -> bool:
        """Whether class masks are made from instance masks."""
        return False

    @property
    def regrouped(self) -> bool:
        """Whether classes are merged or dropped by settings that other data may not have."""
        return False

    @property
    def divided(self) -> bool:
        """Whether folders, lists or settings define the splits."""
        return True

    def meaning_of(self, masks: Sequence[MaskFacts]) -> Meaning:
        """Return the meaning of masks; a `Question` asks if it is unclear."""
        raise NotImplementedError

    def lookup(self) -> MaskLookup | None:
        """Return the lookup of all masks, if it is known without them."""
        return None

    def check_meaning(self) -> None:
        """Raise a `Question` if masks for a trained model have a meaning that no setting declares."""
        self.label_set()

    def place(self, pair: Pair) -> PurePosixPath:
        """Return the path of an image in the folder of images or of the split, without suffix."""
        return PurePosixPath(pair.name)

    def unpaired(self) -> dict[str, list[str]]:
        """Return files that are in no split, by the code of a finding."""
        return {}

    def settled(self) -> DataSource:
        """Return the same data with inferred settings declared, so that files added later do not change them."""
        return self

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line."""
        return []

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split; if not `strict`, those without partner are left out. None without files."""
        return list(self.dataset(split).pairs)

    def names_to_record(self, pairs: Iterable[Pair]) -> list[str]:
        """Return names for a list of the training images of a run; empty if the settings define the splits."""
        return []

    def with_fold(self, folds: int, fold: int) -> DataSource:
        """Return the data with part number `fold` of `folds` equal parts as val; an error if that is not possible."""
        raise CrispsegError(f"folds need a folder of images, but the data are {self.name}")
