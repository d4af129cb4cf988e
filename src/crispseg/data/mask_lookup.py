"""What masks hold: statistics from one pass over each file, and lookup tables from values or colours to class ids."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.io.images import largest_value, palette_of, read_mask
from crispseg.labels import IGNORE, Color, color_table

KEPT = 1024
"""So many values or colours of a mask are kept; a mask of labels has at most 256."""


class MaskStatistics(NamedTuple):
    """What a mask holds."""

    file: str
    size: tuple[int, int]
    """`(H, W)` upright."""
    values: NDArray[Any]
    """`(n,)` values, or `(n, 3)` colours where the channels differ: the `KEPT` most frequent ones, sorted."""
    quarters: NDArray[np.int64]
    """`(n, 2, 2)` pixels of each in the upper and lower, left and right quarters."""
    distinct: int
    """How many values or colours there are in all."""
    blended: float
    """The share of the steps between flat areas that go over values in between; see `blended_steps`."""
    digest: bytes
    """The values of all pixels, in short."""
    shown: NDArray[np.uint8] | None = None
    """`(n, 3)` what the file's own palette shows for each of the values; None without a palette."""
    most: int = 255
    """The largest value that its bits can hold, 3 or 15 in PNGs of 2 or 4 bits a pixel; 255 in all others."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(n,)` pixels of each."""
        counts: NDArray[np.int64] = self.quarters.sum((1, 2))
        return counts

    @property
    def colors(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2

    @property
    def held(self) -> set[int]:
        """The values of a grey mask."""
        return set(self.values.tolist())


def read_statistics(path: Path) -> MaskStatistics:
    """The statistics of a mask file.

    Raises:
        CrispsegError: as for `read_mask`.
    """
    return statistics_of(read_mask(path), str(path), *header_of(path))


def header_of(path: Path) -> tuple[list[Color], int]:
    """The colours of a mask's own palette, and the largest value that its bits can hold; neither if it is broken."""
    try:
        return palette_of(path), largest_value(path)
    except CrispsegError:  # which reading it says
        return [], IGNORE


def statistics_of(mask: NDArray[Any], file: str, palette: Sequence[Color] = (), most: int = 255) -> MaskStatistics:
    """The statistics of a mask `(H, W)` or `(H, W, 3)`; for `palette` and `most` see `MaskStatistics`."""
    digest = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16, key=f"{mask.dtype}{mask.shape}".encode())
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    values, quarters, distinct = count_values(pack_colors(mask) if mask.ndim == 3 else mask)
    if mask.ndim == 3:
        values = np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
    shown = color_table(palette[:256])[values] if palette and mask.ndim == 2 and mask.dtype == np.uint8 else None
    blended = blended_steps(mask if mask.ndim == 2 else mask.sum(-1, dtype=np.uint16)) if distinct > 2 else 0.0
    size = mask.shape[0], mask.shape[1]
    return MaskStatistics(file, size, values, quarters, distinct, blended, digest.digest(), shown, most)


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return the `KEPT` most frequent values, sorted, their pixels in each quarter, and the number of all values."""
    found = []
    for part in (part for half in np.array_split(mask, 2) for part in np.array_split(half, 2, axis=1)):
        flat = part.ravel()
        starts = np.flatnonzero(np.append(flat.size > 0, flat[1:] != flat[:-1]))  # labels come in long runs
        values, inverse = np.unique(flat[starts], return_inverse=True)
        found.append((values, np.bincount(inverse, np.diff(np.append(starts, flat.size)))))
    every = np.unique(np.concatenate([values for values, _ in found]))
    quarters = np.zeros((len(every), 4), np.int64)
    for index, (values, counts) in enumerate(found):
        quarters[np.searchsorted(every, values), index] = counts
    most = np.sort(np.argsort(-quarters.sum(1), kind="stable")[:KEPT])
    return every[most], quarters[most].reshape(-1, 2, 2), len(every)


def blended_steps(values: NDArray[Any]) -> float:
    """The share of the steps between two flat areas, of unequal values, that pass over values in between.

    Where a mask was resized or turned with interpolation nearly all do; where class ids were drawn, few do, by
    chance. A flat area is two equal neighbours in a row or a column. Masks with fewer than 20 such steps, and noise, of
    which no more than half of the neighbours are equal, give 0.
    """
    over = steps = equal = neighbours = 0
    for lines in (values, values.T):
        before, after = lines[:, :-1], lines[:, 1:]
        up, down = after > before, after < before
        flat = ~(up | down)
        equal, neighbours = equal + int(flat.sum()), neighbours + flat.size
        # from a flat area, two changes in one direction
        monotone = (up[:, 1:-1] & up[:, 2:]) | (down[:, 1:-1] & down[:, 2:])
        over += int((flat[:, :-2] & monotone).sum())
        # one change by more than 1, between two flat areas
        far = np.maximum(before, after) - np.minimum(before, after) > 1
        steps += int((flat[:, :-2] & far[:, 1:-1] & flat[:, 2:]).sum())
    return over / (over + steps) if over >= 20 and 2 * equal > neighbours else 0.0


NONE = IGNORE + 1
"""What `MaskLookup.find` gives for a value that means no class."""

DEEP_WHITE = 0xFFFF
"""What 255 becomes in files of 16 bits."""

BORDER = 2
"""Pixels from two objects up to which one is on the border between them."""

CLASSES = "background", "object", "border"
"""What `three_classes` tells apart, unless objects have a name."""

MOST = 2**24
"""The largest number of an object: float32, in which OpenCV dilates, holds every whole number up to it, and tables have
a row for each."""


class MaskLookup(ABC):
    """From a mask as `read_mask` gives it to class ids `(H, W)`, 255 for ignored pixels."""

    meaning: Mapping[Any, int]
    """The class id, or 255, of each value or colour."""

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """The class ids `(H, W)` of a mask.

        Raises:
            ValueError: it holds what means no class; the message says what, and the remedy.
        """
        labels = self.find(mask)
        if labels.max() > IGNORE:
            raise ValueError(self._refused(mask, labels == NONE))
        return labels.astype(np.uint8)

    @abstractmethod
    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        """As `__call__`, with `NONE` for what means no class. Raises where none of it can."""

    def labels_of(self, mask: MaskStatistics) -> NDArray[np.uint16]:
        """Return the label `(n,)` of each of a mask's values: 255 for ignored ones, `NONE` for those of no class."""
        try:
            return self.find(mask.values[None])[0]  # type: ignore[no-any-return]
        except ValueError:  # colours among ids, or 16 bits among colours
            return np.full(len(mask.values), NONE, np.uint16)

    def _refused(self, mask: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
        """What is wrong with the pixels `(H, W)` that mean no class, and what to do."""
        return "values that mean no class"


class ValueLookup(MaskLookup):
    """Masks whose values mean classes. An RGB mask counts as grey where its three channels agree everywhere.

    Args:
        meaning: the class id of each mask value, or 255 to ignore it. 255 itself is ignored in any case, and any other
            value is refused.
        remedy: what to do about a mask that has colours.
        refusal: what is wrong with a value without meaning, and what to do.
    """

    def __init__(self, meaning: Mapping[int, int], remedy: str, refusal: str) -> None:
        self.meaning, self.remedy, self.refusal = {**meaning, IGNORE: IGNORE}, remedy, refusal
        self._table = np.full(2**16, NONE, np.uint16)  # of each 8-bit or 16-bit value
        self._table[list(self.meaning)] = list(self.meaning.values())

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        return self._table.take(grey(mask, self.remedy))

    def _refused(self, mask: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
        values = np.unique(grey(mask, self.remedy)[wrong])
        more = f" (and {len(values) - 5} more: does it number objects?)" if len(values) > 5 else ""
        return f"value {', '.join(map(str, values[:5]))}{more} {self.refusal}"


class TableLookup(ValueLookup):
    """Masks of a public data set, whose values mean classes by a table; errors call the values `values`."""

    def __init__(self, meaning: Mapping[int, int], values: str) -> None:
        refusal = f"is none of the {values}, 0 to {max(meaning)}; restore the original mask"
        super().__init__(meaning, f"give the original mask, of {values}", refusal)


class IdLookup(ValueLookup):
    """Masks whose values are class ids: 255 and the values of `ignore` become 255, ids are kept."""

    def __init__(
        self, classes: int, ignore: tuple[int, ...] = (), remedy: str = "say what they mean, by data.palette"
    ) -> None:
        void = ", ".join(map(str, sorted({IGNORE, *ignore})))
        refusal = (
            f"is out of range 0 to {classes - 1} (ignored: {void}); "
            "correct the mask, the number of classes or the ignored values"
        )
        meaning = {**{index: index for index in range(classes)}, **dict.fromkeys(ignore, IGNORE)}
        super().__init__(meaning, remedy, refusal)


class ColorLookup(MaskLookup):
    """Masks whose colours mean classes; a grey value v is the colour (v, v, v), and 65535 beside 0 alone is white.

    Args:
        palette: the colours.
        ignore: further colours, whose pixels become 255.
        ids: the class id of each colour of `palette`, or 255; by default they are numbered.
        names: what the colours are called, if not by the name of the class.
        refusal: what is wrong with a colour that is none of these, and what to do.
        if_grey: what else may be done where the mask is grey.
    """

    def __init__(
        self,
        palette: tuple[Color, ...],
        ignore: tuple[Color, ...] = (),
        ids: tuple[int, ...] = (),
        names: tuple[str, ...] = (),
        refusal: str = "is not in data.palette; add it there or to data.ignore",
        if_grey: str = " or, if the values are class ids, leave data.palette out",
    ) -> None:
        self.palette, self.names, self.refusal, self.if_grey = palette, names, refusal, if_grey
        self.meaning = dict.fromkeys(ignore, IGNORE) | dict(zip(palette, ids or range(len(palette)), strict=True))

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        if mask.dtype != np.uint8 and np.isin(mask, (0, DEEP_WHITE)).all():
            mask = mask >> 8  # black and white
        if mask.max() > 0xFF:
            raise ValueError("16-bit values, which no palette of 8-bit colours can decode; save the mask with 8 bits")
        return _color_table(tuple(self.meaning.items())).take(pack_colors(mask))

    def _refused(self, mask: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
        colors, counts = np.unique(pack_colors(mask)[wrong], return_counts=True)
        most = counts.argmax()
        color = [int(colors[most]) >> shift & 0xFF for shift in (16, 8, 0)]
        others = f" (and {len(colors) - 1} other colours)" if len(colors) > 1 else ""
        hint = self.if_grey if mask.ndim == 2 else ""
        return f"the colour {color} of {counts[most]} pixels{others} {self.refusal}{hint}"


class InstanceLookup(MaskLookup):
    """Instance masks, which number objects, with the classes of `three_classes`."""

    meaning = MappingProxyType({0: 0, **dict.fromkeys(range(1, 2**16), 1)})
    """The class of each number of 16 bits where no border is near."""

    @staticmethod
    def numbers(mask: NDArray[Any]) -> NDArray[np.int32]:
        """The object numbers `(H, W)` of a mask as `read_mask` gives it.

        Raises:
            ValueError: it has colours.
        """
        return grey(mask, "give an instance mask, 0 and a number for each object").astype(np.int32, copy=False)

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        return three_classes(self.numbers(mask)).astype(np.uint16)


def three_classes(numbers: NDArray[np.integer], radius: int = BORDER) -> NDArray[np.uint8]:
    """The classes `(H, W)` of a map of object numbers `(H, W)`, in which 0 is no object.

    2, border: among the pixels whose centres are at most `radius` pixels away, itself included, are some of two
    different objects. 1, object: any other pixel of an object. 0, background: any other pixel.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    exact = numbers.astype(np.float32)
    largest, smallest = cv2.dilate(exact, disk), cv2.erode(np.where(exact > 0, exact, np.float32(np.inf)), disk)
    return np.where(smallest < largest, np.uint8(2), (numbers > 0).view(np.uint8))


def grey(mask: NDArray[Any], remedy: str) -> NDArray[Any]:
    """A mask `(H, W)` or `(H, W, 3)` as one channel.

    Raises:
        ValueError: it has colours; the message ends with the remedy.
    """
    if mask.ndim == 2:
        return mask
    if (mask == mask[..., :1]).all():
        return mask[..., 0]
    colors = np.unique(mask.reshape(-1, 3), axis=0).tolist()
    more = f" and {len(colors) - 12} more" if len(colors) > 12 else ""
    raise ValueError(f"an RGB mask, with the colours {', '.join(map(str, colors[:12]))}{more}; {remedy}")


def pack_colors(mask: NDArray[Any]) -> NDArray[np.uint32]:
    """A mask of colours `(H, W, 3)`, or of grey values `(H, W)`, as one number `(H, W)` for each colour."""
    red, green, blue = (mask.astype(np.uint32) if mask.ndim == 2 else mask[..., i].astype(np.uint32) for i in range(3))
    return (red << np.uint32(16)) | (green << np.uint32(8)) | blue


@lru_cache(maxsize=2)  # 32 MB each
def _color_table(meaning: tuple[tuple[Color, int], ...]) -> NDArray[np.uint16]:
    """The class of each of the 2^24 packed colours, `NONE` for those of none."""
    table = np.full(2**24, NONE, np.uint16)
    colors, labels = zip(*meaning, strict=True)
    table[pack_colors(np.array([colors]))[0]] = labels
    return table
