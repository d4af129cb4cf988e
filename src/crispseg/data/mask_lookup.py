"""What masks hold: statistics from one pass over each file, and lookup tables from values or colours to class ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from crispseg.io.opening import UnreadablePicture, opened
from crispseg.labels import IGNORE, Color, color_table

NOISE, LOSSY_NOISE = 8, 20
"""In flat areas, and in those of lossy files, neighbours differ by up to so much."""

TONE = 32
"""Values up to so far from those that are expected may be these, changed by noise or soft edges."""
SHARE, LEAST = 0.002, 4
"""If more of the flat pixels that are not of the most frequent value, and more pixels, have others, these mean a class.
"""
TINT = 16
"""Up to this difference between channels lossy compression may have tinted a grey."""

KEPT = 1024
"""The values or colours of a mask that are kept; a mask of labels has at most 256."""


class MaskStatistics(NamedTuple):
    """What a mask holds."""

    file: str
    size: tuple[int, int]
    """`(H, W)` upright."""
    values: NDArray[Any]
    """`(n,)` values, or `(n, 3)` colours where the channels differ: the `KEPT` most frequent ones, sorted."""
    quarters: NDArray[np.int64]
    """`(n, 2, 2)` pixels of each in the upper and lower, left and right quarters."""
    flat: NDArray[np.int64]
    """`(n,)` pixels of each whose 3 x 3 neighbours differ by no more than `NOISE`; edges have none."""
    distinct: int
    """How many values or colours there are in all."""
    blended: float
    """The share of the steps between flat areas that go over values in between; see `blended_steps`."""
    digest: bytes
    """The values of all pixels, in short."""
    lossy: str = ""
    """Why training by exact values would be wrong: the refusal of a file of lossy compression."""
    palette: tuple[Color, ...] = ()
    """The colours of the values that are indices."""
    hidden: frozenset[Color] = frozenset()
    """Colours that transparent pixels have, and no opaque ones."""
    inverted: bool = False
    """Whether the file is a TIFF in which 0 is white."""

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

    @property
    def in_color(self) -> MaskStatistics:
        """These with the colours of a palette, if there is one, instead of its indices."""
        if not self.palette or self.colors:
            return self
        return self._replace(values=color_table(self.palette[:256])[self.values])


def read_statistics(path: Path) -> MaskStatistics:
    """The statistics of a mask file, lossy compression included. Raises as `read_mask`."""
    with opened(path) as raster:
        try:
            mask, lossy = raster.labels(), ""
        except UnreadablePicture as error:
            if error.code != "lossy-mask":
                raise
            mask, lossy = raster.labels(lossy=True), str(error)
            if mask.ndim == 3 and np.ptp(mask.astype(np.int16), axis=2).max() <= TINT:
                mask = mask[..., 1]
        found = statistics_of(mask, str(path), lossy)._replace(palette=raster.palette, inverted=raster.inverted)
        if raster.color != "rgb" or raster.bands < 4 or (alpha := raster.values[..., 3]).min() == 255:
            return found
        clear, opaque = (
            unpack_colors(np.unique(pack_colors(mask[part][None]))) for part in (alpha < 128, alpha == 255)
        )
        return found._replace(hidden=frozenset({*map(tuple, clear.tolist())} - {*map(tuple, opaque.tolist())}))


def statistics_of(mask: NDArray[Any], file: str, lossy: str = "") -> MaskStatistics:
    """The statistics of a mask `(H, W)` or `(H, W, 3)`."""
    digest = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16, key=f"{mask.dtype}{mask.shape}".encode())
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    keys = pack_colors(mask) if mask.ndim == 3 else mask
    values, quarters, distinct = count_values(keys)
    flat = quarters.sum((1, 2)) if distinct <= 2 else count_flat(mask, keys, values, LOSSY_NOISE if lossy else NOISE)
    if mask.ndim == 3:
        values = unpack_colors(values)
    blended = blended_steps(mask if mask.ndim == 2 else mask.sum(-1, dtype=np.uint16)) if distinct > 2 else 0.0
    return MaskStatistics(file, mask.shape[:2], values, quarters, flat, distinct, blended, digest.digest(), lossy)


def in_flat_areas(mask: MaskStatistics, which: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of those of a mask's values, `which` `(n,)`, that are a class's: flat areas have them, as no
    noise and no soft edges do; the most frequent first.
    """
    flat = np.where(which, mask.flat, 0)
    return np.argsort(-flat)[: np.count_nonzero(flat) if flat.sum() > least_flat(mask) else 0]


def least_flat(mask: MaskStatistics) -> float:
    """Return the number of flat pixels of a mask that noise and soft edges do not exceed."""
    return max(LEAST, SHARE * int(mask.flat.sum() - mask.flat.max()))


def part(mask: MaskStatistics, at: NDArray[Any]) -> MaskStatistics:
    """Return the statistics of some values of a mask, by their indices, or whether each belongs to them."""
    return mask._replace(values=mask.values[at], quarters=mask.quarters[at], flat=mask.flat[at])


def as_colors(mask: MaskStatistics) -> NDArray[Any]:
    """Return the values of a mask as colours `(n, 3)`; a grey value v is the colour (v, v, v)."""
    return mask.values if mask.colors else mask.values[:, None].repeat(3, 1)


def held(grey: Iterable[MaskStatistics]) -> set[int]:
    """Return the values that any of some grey masks holds."""
    return set().union(*(mask.held for mask in grey))


def pixels_of(masks: Iterable[MaskStatistics], in_color: bool = False) -> Counter[Any]:
    """The pixels of each value in all masks, or of each colour; a grey value v is the colour (v, v, v)."""
    pixels: Counter[Any] = Counter()
    for mask in masks:
        keys = map(tuple, as_colors(mask).tolist()) if in_color else mask.values.tolist()
        pixels.update(dict(zip(keys, mask.counts.tolist(), strict=True)))
    return pixels


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return the `KEPT` most frequent values, sorted, their pixels in each quarter, and the number of all values."""
    if mask.max() > 0xFFFF:
        values, ids = np.unique(mask, return_inverse=True)
    else:
        values, ids = np.arange(int(mask.max()) + 1, dtype=mask.dtype), mask
    parts = [part for half in np.array_split(ids, 2) for part in np.array_split(half, 2, axis=1)]
    quarters = np.stack([np.bincount(part.ravel(), minlength=len(values)) for part in parts], axis=1)  # (values, 4)
    there = np.flatnonzero(quarters.any(axis=1))
    most = np.sort(there[np.argsort(-quarters[there].sum(axis=1), kind="stable")[:KEPT]])
    return values[most], quarters[most].reshape(-1, 2, 2), len(there)


def count_flat(mask: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], noise: int) -> NDArray[np.int64]:
    """Return the pixels `(n,)` in flat areas of a mask that have each of the values `(n,)` among the keys `(H, W)`."""
    levels, area = mask.astype(np.float32), np.ones((3, 3), np.uint8)
    spans = cv2.dilate(levels, area) - cv2.erode(levels, area)
    inner = keys[(spans <= noise) if mask.ndim == 2 else (spans <= noise).all(-1)]
    at = np.searchsorted(values, inner).clip(max=len(values) - 1)
    return np.bincount(at[values[at] == inner], minlength=len(values))


def blended_steps(values: NDArray[Any]) -> float:
    """The share of the steps between two flat areas, of unequal values, that pass over values in between.

    Where a mask was resized or turned with interpolation nearly all do; where class ids were drawn, few do, by
    chance. A flat area is two equal neighbours in a row or a column. Masks with fewer than 20 such steps, and noise, of
    which no more than half of the neighbours are equal, give 0.
    """
    over = steps = equal = neighbours = 0
    for lines in (values, values.T):
        changes = np.diff(lines.astype(np.int32))
        flat, direction = changes == 0, np.sign(changes, dtype=np.int8, casting="unsafe")
        equal, neighbours = equal + int(flat.sum()), neighbours + flat.size
        # from a flat area, two changes in one direction; or one change by more than 1 to another flat area
        over += int((flat[:, :-2] & (direction[:, 1:-1] * direction[:, 2:] > 0)).sum())
        steps += int((flat[:, :-2] & (np.abs(changes[:, 1:-1]) > 1) & flat[:, 2:]).sum())
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


class MaskLookup:
    """From a mask as `read_mask` gives it to class ids `(H, W)`, 255 for ignored pixels.

    Args:
        meaning: the class id, or 255, of each value; or of each colour, where a grey value v is the colour (v, v, v).
        wrong: what is wrong with any other value or colour.
        remedy: what to do about it.
        colors_remedy: what to do about a mask that has colours, if values are expected.
    """

    most = 0xFFFF
    """The largest value that is read."""
    tolerance = 0.0
    """Distance in RGB up to which a colour means the same as another; masks of lossy files need some."""

    def __init__(self, meaning: Mapping[Any, int], wrong: str, remedy: str, colors_remedy: str = "") -> None:
        self.meaning, self.wrong, self.remedy, self.colors_remedy = meaning, wrong, remedy, colors_remedy
        self.colors = any(isinstance(key, tuple) for key in meaning)
        self.in_color = self.colors and any(len({*key}) > 1 for key in meaning)

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """The class ids `(H, W)` of a mask.

        Raises:
            ValueError: it holds what means no class; the message says what, and the remedy.
        """
        labels = self.find(mask)
        if labels.max() > IGNORE:
            keys = pack_colors(mask) if self.colors else grey(mask, self.colors_remedy)
            values = np.unique(keys[labels == NONE])
            shown = map(str, (unpack_colors(values) if self.colors else values)[:5].tolist())
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            what = f"{'colour' if self.colors else 'value'} {', '.join(shown)}{more} {self.wrong}"
            raise ValueError(f"{what}; {self.remedy}")
        return labels.astype(np.uint8)

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        """As `__call__`, with `NONE` for what means no class; 65535 is white if 0 is the only other value.

        Raises:
            ValueError: a mask of values has colours, or one of colours has 16 bits.
        """
        if not self.colors:
            return self._table.take(grey(mask, self.colors_remedy))
        if mask.dtype != np.uint8 and np.isin(mask, (0, DEEP_WHITE)).all():
            mask = mask >> 8
        if mask.max() > 0xFF:
            raise ValueError("16-bit values, which no palette of 8-bit colours can decode; save the mask with 8 bits")
        return self._table.take(pack_colors(mask))

    @cached_property
    def _table(self) -> NDArray[np.uint16]:
        """The class of each value of 8 or 16 bits, or of each packed colour (32 MB)."""
        table = np.full(2**24 if self.colors else 2**16, NONE, np.uint16)
        keys = np.array([*self.meaning])
        table[pack_colors(keys[None])[0] if self.colors else keys] = [*self.meaning.values()]
        return table

    def regrouped(self, ids: Mapping[int, int]) -> Self:
        """Return this lookup with other class ids, by the old ones."""
        found = copy(self)
        found.__dict__.pop("_table", None)
        found.meaning = {value: ids.get(label, label) for value, label in self.meaning.items()}
        return found

    def labels_of(self, mask: MaskStatistics) -> NDArray[np.uint16]:
        """Return the label `(n,)` of each of a mask's values: 255 for ignored ones, `NONE` for those of no class."""
        try:
            return self.find((mask.in_color if self.in_color else mask).values[None])[0]  # type: ignore[no-any-return]
        except ValueError:  # colours among ids, or 16 bits among colours
            return np.full(len(mask.values), NONE, np.uint16)


class TableLookup(MaskLookup):
    """Masks of a public data set, whose values mean classes by a table; errors call the values `values`."""

    def __init__(self, meaning: Mapping[int, int], values: str) -> None:
        wrong, colors_remedy = f"is none of the {values}, 0 to {max(meaning)}", f"give the original mask, of {values}"
        super().__init__({**meaning, IGNORE: IGNORE}, wrong, "restore the original mask", colors_remedy)


class IdLookup(MaskLookup):
    """Masks whose values are class ids: 255 and the values of `ignore` become 255, ids are kept."""

    def __init__(
        self,
        classes: int,
        ignore: tuple[int, ...] = (),
        remedy: str = "correct the mask, or give data.num_classes, or data.ignore for what means ignore",
        colors_remedy: str = "say what they mean, by data.palette",
    ) -> None:
        self.classes, void = classes, sorted({IGNORE, *ignore})
        wrong = f"is out of range 0 to {classes - 1} (ignored: {', '.join(map(str, void))})"
        meaning = {index: index for index in range(classes)} | dict.fromkeys(void, IGNORE)
        super().__init__(meaning, wrong, remedy, colors_remedy)


class ColorLookup(MaskLookup):
    """Masks whose colours mean classes, in the order of the ids or by a mapping; those of `ignore` become 255.

    Args:
        tolerance: distance in RGB, 0 to 442, up to which another colour is taken for the nearest of these.
    """

    def __init__(
        self,
        palette: Sequence[Color] | Mapping[Color, int],
        ignore: Sequence[Color] = (),
        wrong: str = "is not in data.palette",
        remedy: str = "add it there or to data.ignore",
        tolerance: float = 0,
    ) -> None:
        ids = palette.values() if isinstance(palette, Mapping) else range(len(palette))
        self.palette, self.tolerance = (*palette,), tolerance
        super().__init__(dict.fromkeys(ignore, IGNORE) | dict(zip(palette, ids, strict=True)), wrong, remedy)

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        found = super().find(mask)
        if self.tolerance and (found == NONE).any():  # the table learns the colours that occur
            keys = np.unique(pack_colors(mask)[found == NONE])
            labels = np.array([*self.meaning.values()], np.uint16)
            distances, at = KDTree(np.array([*self.meaning])).query(unpack_colors(keys))
            self._table[keys] = np.where(distances <= self.tolerance, labels[at], NONE)
            found = super().find(mask)
        return found


class InstanceLookup(MaskLookup):
    """Instance masks, which number objects, with the classes of `three_classes`."""

    most = MOST
    classes: Sequence[int] = range(len(CLASSES))

    def __init__(self) -> None:
        super().__init__({0: 0, **dict.fromkeys(range(1, 2**16), 1)}, "", "")  # where no border is near

    @staticmethod
    def numbers(mask: NDArray[Any]) -> NDArray[np.int32]:
        """The object numbers `(H, W)` of a mask as `read_mask` gives it.

        Raises:
            ValueError: it has colours.
        """
        return grey(mask, "give an instance mask, 0 and a number for each object").astype(np.int32, copy=False)

    def regrouped(self, ids: Mapping[int, int]) -> Self:
        found = super().regrouped(ids)
        found.classes = [ids[label] for label in range(len(CLASSES))]
        return found

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        return np.array(self.classes, np.uint16).take(three_classes(self.numbers(mask)))


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


def unpack_colors(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The colours `(n, 3)` of numbers `(n,)` as `pack_colors` makes them."""
    return np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
