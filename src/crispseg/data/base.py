"""What every data source gives: labelled images, and what their class ids mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from crispseg.errors import CrispsegError
from crispseg.imaging import image_channels, read_image, read_mask
from crispseg.labels import IGNORE, LabelSet

Decoder: TypeAlias = Callable[[NDArray[Any]], NDArray[np.uint8]]
"""A mask as `read_mask` gives it → class ids `(H, W)`. Its ValueError says what is wrong and the remedy."""


class Sample(NamedTuple):
    """One labelled image."""

    image: NDArray[np.uint8]
    """`(H, W, 3)` RGB, or `(H, W, 4)` RGB and a fourth channel for models that take one."""
    labels: NDArray[np.uint8]
    """`(H, W)` class ids; 255 means ignore."""
    name: str
    """Unique in the split and usable as a file stem; may hold "/" for sub-folders."""


class SegmentationDataset(Dataset[Sample], ABC):
    """One split: samples, and what their class ids mean."""

    labels: LabelSet

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def name_of(self, index: int) -> str:
        """The name of a sample, where possible without reading it."""
        return self[index].name

    def with_channels(self, in_chans: int) -> SegmentationDataset:
        """This split, its images with the `image_channels` of a model of `in_chans`.

        Raises:
            CrispsegError: images have no such number of channels, or those of this split are RGB only.
        """
        if image_channels(in_chans) != 3:
            raise CrispsegError(
                f"in_chans is {in_chans}, but these data are RGB images; use 3, or files with 4 channels"
            )
        return self


class Pair(NamedTuple):
    """An image file and the mask file that belongs to it."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class IdDecoder:
    """Masks whose values are class ids: 255 and the values of `ignore` become 255, ids are kept.

    An RGB mask counts as grey where its three channels agree everywhere; `remedy` says what to do where it has colours.
    """

    classes: int
    ignore: tuple[int, ...] = ()
    remedy: str = "say what they mean, by --data.palette"

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        mask = grey(mask, self.remedy)
        labels = _id_table(self.classes, self.ignore).take(mask)
        if labels.max() > IGNORE:
            wrong = ", ".join(map(str, np.unique(mask[labels > IGNORE])[:5]))
            allowed = ", ".join(map(str, sorted({IGNORE, *self.ignore})))
            raise ValueError(
                f"value {wrong} is out of range 0 to {self.classes - 1} (ignored: {allowed}); "
                "correct the mask, the number of classes or the ignored values"
            )
        return labels.astype(np.uint8)


def grey(mask: NDArray[Any], remedy: str) -> NDArray[Any]:
    """A mask `(H, W)` or `(H, W, 3)` as one channel.

    Raises:
        ValueError: it has colours; the message ends with the remedy.
    """
    if mask.ndim == 2:
        return mask
    if (mask == mask[..., :1]).all():
        return mask[..., 0]
    colors = np.unique(mask.reshape(-1, 3), axis=0)
    shown = ", ".join(str(color.tolist()) for color in colors[:12])
    more = f" and {len(colors) - 12} more" if len(colors) > 12 else ""
    raise ValueError(f"an RGB mask, with the colours {shown}{more}; {remedy}")


@lru_cache(maxsize=8)
def _id_table(classes: int, ignore: tuple[int, ...]) -> NDArray[np.uint16]:
    """For each 8-bit or 16-bit value its label, 256 where it has none."""
    table = np.full(2**16, IGNORE + 1, np.uint16)
    table[:classes] = np.arange(classes)
    table[[IGNORE, *ignore]] = IGNORE
    return table


class FileDataset(SegmentationDataset):
    """A split made of image files and mask files.

    Args:
        pairs: the files, in the order of the indices.
        labels: what the class ids mean.
        decode: turns a mask as it is in the file into class ids.
        channels: of the images, 3 or 4; see `read_image`.
    """

    def __init__(self, pairs: Sequence[Pair], labels: LabelSet, decode: Decoder, channels: int = 3) -> None:
        self.pairs = tuple(pairs)
        self.labels = labels
        self.decode = decode
        self.channels = channels

    def with_channels(self, in_chans: int) -> FileDataset:
        """This split, its images with the `image_channels` of a model of `in_chans`; files are read when asked for."""
        return FileDataset(self.pairs, self.labels, self.decode, image_channels(in_chans))

    def name_of(self, index: int) -> str:
        """The name of a pair; its files are not read."""
        return self.pairs[index].name

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            CrispsegError: a file is broken, the two sizes differ, the image lacks a channel or the mask holds a value
                that means no class.
        """
        pair = self.pairs[index]
        image, labels = read_image(pair.image, self.channels), self.read_labels(index)
        check_same_size(pair, image.shape[:2], labels.shape)
        return Sample(image, labels, pair.name)

    def read_labels(self, index: int) -> NDArray[np.uint8]:
        """The class ids `(H, W)` of one mask, without its image. Raises as `__getitem__` does."""
        path = self.pairs[index].mask
        try:
            return self.decode(read_mask(path))
        except ValueError as error:
            raise CrispsegError(f"{path}: {error}") from None


def check_same_size(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Compare the `(H, W)` of a pair's files.

    Raises:
        CrispsegError: they differ.
    """
    if image != mask:
        raise CrispsegError(
            f"{pair.mask} is {mask[0]}x{mask[1]} (height x width) but its image {pair.image} is "
            f"{image[0]}x{image[1]}; resize one of them, a mask with nearest-neighbour interpolation"
        )


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, stripped, without empty ones and those that start with "#".

    Raises:
        CrispsegError: the file cannot be read, is not text, or has no lines.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CrispsegError(f"cannot read {path} ({error.strerror}); give a text file") from None
    except UnicodeDecodeError:
        raise CrispsegError(f"{path} is not UTF-8 text; give a text file") from None
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if not lines:
        raise CrispsegError(f"{path} is empty; write one entry a line")
    return lines


class DataSource(Protocol):
    """Where the splits come from. A data source is a frozen dataclass, whose fields are its command-line keys."""

    name: ClassVar[str]

    def label_set(self) -> LabelSet: ...

    def splits(self) -> tuple[str, ...]: ...

    def dataset(self, split: str) -> SegmentationDataset: ...
