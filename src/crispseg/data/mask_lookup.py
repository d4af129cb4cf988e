"""Statistics of mask files, and lookup tables from values or colours to class ids."""

from __future__ import annotations

import hashlib
import math
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

from crispseg.errors import few
from crispseg.folders.facts import pack_colors, unpack_colors
from crispseg.io.opening import opened
from crispseg.labels import IGNORE, Color, color_table

NOISE, LOSSY_NOISE = 8, 20  # largest differences between neighbours in flat areas, in exact and in lossy files
TONE = 32  # largest distance by which noise or soft edges may change an expected value
SHARE, LEAST = 0.002, 4  # flat pixels of a class: smallest share outside the most frequent value, and number
TINT = 16  # largest difference between the channels of a grey that lossy compression tinted
OBJECTS = 20  # largest id up to which all classes may occur in one image
BAND, STEPS = 11, 0.95  # width in pixels that a thin band never has, and its smallest share of the steps between ids
BLENDED = 0.3  # smallest share of blended steps of an interpolated mask; CamVid's masks have up to 0.04
KEPT = 1024  # maximum number of values or colours to keep of a mask; a mask of labels has at most 256


class MaskStatistics(NamedTuple):
    """Statistics of a mask."""

    file: str
    size: tuple[int, int]  # `(H, W)` upright
    values: NDArray[Any]  # `(n,)` values, or `(n, 3)` colours if channels differ: the `KEPT` most frequent, sorted
    quarters: NDArray[np.int64]  # `(n, 2, 2)` pixel counts in the upper and lower, left and right quarters
    flat: NDArray[np.int64]  # `(n,)` pixel counts in flat areas, whose 3 x 3 neighbours differ by at most `NOISE`
    frame: NDArray[np.int64]  # `(n,)` pixel counts of each value in the outermost rows and columns
    distinct: int  # total number of values or colours
    blended: float  # share of the steps between flat areas that pass intermediate values; see `blended_steps`
    single: int | None  # number of ids with one area; None unless exactly the ids 1 to k occur beside 0 and 255
    band: Any  # value or colour that separates all others as a thin band, such as unlabelled outlines; None without one
    digest: bytes  # hash of the values of all pixels
    lossy: str = ""  # error message about lossy compression, which changes values; empty for exact files
    palette: tuple[Color, ...] = ()  # colours of the values of a palette file
    clear: frozenset[int] = frozenset()  # transparent values of a palette file
    transparent: float | None = None  # share of the transparent pixels; None if the file cannot have any
    inverted: bool = False  # whether the file is a TIFF in which 0 is white
    orientation: int = 1  # EXIF orientation, 1 to 8
    nodata: float | None = None  # value without data, from GDAL's metadata of a GeoTIFF
    place: tuple[float, ...] = ()  # map position of a GeoTIFF, see `map_position`

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(n,)` pixel counts of each value."""
        return np.asarray(self.quarters.sum((1, 2)))

    @property
    def colors(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2

    @property
    def interpolated(self) -> bool:
        """Whether the mask seems to be resized with interpolation."""
        return self.blended >= BLENDED

    @property
    def held(self) -> set[int]:
        """The values of a grey mask."""
        return set(self.values.tolist())

    @property
    def opaque_black(self) -> float:
        """Share of the opaque pixels that are black."""
        opaque = 1 - (self.transparent or 0)
        black = self.counts[~as_colors(self).any(1)].sum() / math.prod(self.size)  # transparent pixels are also black
        return float(black - 1 + opaque) / opaque if opaque else 0.0

    @property
    def in_color(self) -> MaskStatistics:
        """Statistics with palette colours instead of indices, if there is a palette."""
        if not self.palette or self.colors:
            return self
        table = color_table(self.palette[:256])
        table[[*self.clear]] = 0
        band = None if self.band is None else (*table[self.band].tolist(),)
        return self._replace(values=table[self.values], band=band)


def read_statistics(path: Path) -> MaskStatistics:
    """Return the statistics of a mask file, even a lossy one. Errors are those of `read_mask`."""
    with opened(path) as raster:
        mask = raster.labels(lossy=True)
        if raster.lossy and mask.ndim == 3 and np.ptp(mask.astype(np.int16), axis=2).max() <= TINT:
            mask = mask[..., 1]
        return statistics_of(mask, str(path), raster.lossy)._replace(
            palette=raster.palette,
            clear=raster.clear,
            transparent=None if raster.visible is None else 1 - float(raster.visible.mean()),
            inverted=raster.inverted,
            orientation=raster.orientation(),
            nodata=raster.nodata,
            place=raster.place,
        )


def statistics_of(mask: NDArray[Any], file: str, lossy: str = "") -> MaskStatistics:
    """Return the statistics of a mask `(H, W)` or `(H, W, 3)`."""
    digest = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16, key=f"{mask.dtype}{mask.shape}".encode())
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    keys = pack_colors(mask) if mask.ndim == 3 else mask
    values, quarters, distinct = count_values(keys)
    flat = quarters.sum((1, 2)) if distinct <= 2 else count_flat(mask, keys, values, LOSSY_NOISE if lossy else NOISE)
    outermost = np.concatenate([keys[0], keys[-1], keys[1:-1, 0], keys[1:-1, -1]])
    frame = np.array([np.count_nonzero(outermost == value) for value in values])
    at = band_at(np.searchsorted(values, keys), distinct) if 3 <= distinct <= OBJECTS else None
    if mask.ndim == 3:
        values = unpack_colors(values)
    blended = blended_steps(mask if mask.ndim == 2 else mask.sum(-1, dtype=np.uint16)) if distinct > 2 else 0.0
    single = count_single(mask, values) if mask.ndim == 2 else None
    band = None if at is None else values[at].tolist() if mask.ndim == 2 else (*values[at].tolist(),)
    return MaskStatistics(
        file, mask.shape[:2], values, quarters, flat, frame, distinct, blended, single, band, digest.digest(), lossy
    )


def count_single(mask: NDArray[Any], values: NDArray[Any]) -> int | None:
    """Return how many of the ids 1 to k, with k up to `OBJECTS`, have one area; None if the sorted values differ."""
    ids = [value for value in values.tolist() if value not in (0, IGNORE)]
    if not ids or ids != [*range(1, len(ids) + 1)] or len(ids) > OBJECTS:
        return None
    return sum(int(cv2.connectedComponents((mask == index).astype(np.uint8))[0] == 2) for index in ids)


def band_at(ids: NDArray[np.intp], count: int) -> int | None:
    """Return the id of a mask `(H, W)` of ids below `count` that is in nearly all steps between ids, and is thin."""
    pairs = (ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])
    steps = np.concatenate([np.concatenate([one[one != other], other[one != other]]) for one, other in pairs])
    counts = np.bincount(steps, minlength=count)
    most = int(counts.argmax())
    if 2 * counts[most] < STEPS * len(steps):
        return None
    inner = cv2.erode((ids == most).astype(np.uint8), np.ones((BAND, BAND), np.uint8), borderValue=0)
    return None if inner.any() else most


def in_flat_areas(mask: MaskStatistics, which: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of values in `which` `(n,)` that flat areas contain, which are classes, by frequency."""
    flat = np.where(which, mask.flat, 0)
    return np.argsort(-flat)[: np.count_nonzero(flat) if flat.sum() > least_flat(mask) else 0]


def least_flat(mask: MaskStatistics) -> float:
    """Return the largest number of flat pixels that noise or soft edges may cause."""
    return max(LEAST, SHARE * int(mask.flat.sum() - mask.flat.max()))


def part(mask: MaskStatistics, at: NDArray[Any]) -> MaskStatistics:
    """Return the statistics of some values of a mask, selected by indices or by a boolean mask."""
    return mask._replace(**{name: getattr(mask, name)[at] for name in ("values", "quarters", "flat", "frame")})


def as_colors(mask: MaskStatistics) -> NDArray[Any]:
    """Return the values of a mask as colours `(n, 3)`; a grey value v is the colour (v, v, v)."""
    return mask.values if mask.colors else mask.values[:, None].repeat(3, 1)


def held(grey: Iterable[MaskStatistics]) -> set[int]:
    """Return all values that occur in grey masks."""
    return set().union(*(mask.held for mask in grey))


def pixels_of(masks: Iterable[MaskStatistics], in_color: bool = False) -> Counter[Any]:
    """Return the pixel counts of each value or colour in all masks; a grey value v is the colour (v, v, v)."""
    pixels: Counter[Any] = Counter()
    for mask in masks:
        keys = map(tuple, as_colors(mask).tolist()) if in_color else mask.values.tolist()
        pixels.update(dict(zip(keys, mask.counts.tolist(), strict=True)))
    return pixels


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return the `KEPT` most frequent values, sorted, their pixel counts by quarter, and the number of all values."""
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
    """Return the number of flat pixels `(n,)` of a mask for each of the values `(n,)` in the keys `(H, W)`."""
    spans = cv2.morphologyEx(mask.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    inner = keys[(spans <= noise) if mask.ndim == 2 else (spans <= noise).all(-1)]
    at = np.searchsorted(values, inner).clip(max=len(values) - 1)
    return np.bincount(at[values[at] == inner], minlength=len(values))


def blended_steps(values: NDArray[Any]) -> float:
    """Return the share of the steps between two flat areas of unequal values that pass intermediate values.

    Nearly all steps do so in a mask that was resized with interpolation, and few do so in drawn class ids. A flat area
    is two equal neighbours in a row or a column. The result is 0 for masks with fewer than 20 such steps, and for
    noise, in which at most half of the neighbours are equal.
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


NONE = IGNORE + 1  # result of `MaskLookup.find` for a value without a class
DEEP_WHITE = 0xFFFF  # white in 16-bit files, like 255 in 8-bit files
BORDER = 2  # largest distance in pixels to two objects at which a pixel is on their border
CLASSES = "background", "object", "border"  # default names of the classes of `three_classes`
MOST = 2**24  # largest object number; float32, in which OpenCV dilates, is exact up to it


class MaskLookup:
    """Conversion of masks from `read_mask` to class ids `(H, W)`, with 255 for ignored pixels.

    Args:
        meaning: class id, or 255, of each value or colour; a grey value v is the colour (v, v, v).
        wrong: error message for any other value or colour.
        remedy: its remedy.
    """

    most = 0xFFFF  # largest value that is read
    tolerance = 0.0  # largest RGB distance at which a colour counts as another; lossy masks need more than 0

    def __init__(self, meaning: Mapping[Any, int], wrong: str, remedy: str) -> None:
        self.meaning, self.wrong, self.remedy = meaning, wrong, remedy
        self.colors = any(isinstance(key, tuple) for key in meaning)
        self.in_color = self.colors and any(len({*key}) > 1 for key in meaning)

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class ids `(H, W)` of a mask; values without a class raise a `ValueError` that lists them."""
        labels = self.find(mask)
        if labels.max() > IGNORE:
            keys = pack_colors(mask) if self.colors else grey(mask, self.remedy)
            values = np.unique(keys[labels == NONE])
            shown = few((unpack_colors(values) if self.colors else values).tolist())
            raise ValueError(f"{'colour' if self.colors else 'value'} {shown} {self.wrong}; {self.remedy}")
        return labels.astype(np.uint8)

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        """Return class ids, with `NONE` for values without a class; 65535 is white if 0 is the only other value.

        Colours in a mask of values, or 16 bits in one of colours, raise a `ValueError`.
        """
        if not self.colors:
            return self._table.take(grey(mask, self.remedy))
        if mask.dtype != np.uint8 and np.isin(mask, (0, DEEP_WHITE)).all():
            mask = mask >> 8
        if mask.max() > 0xFF:
            raise ValueError("16-bit values, which no palette of 8-bit colours can decode; save the mask with 8 bits")
        return self._table.take(pack_colors(mask))

    @cached_property
    def _table(self) -> NDArray[np.uint16]:
        """Class of each value of 8 or 16 bits, or of each packed colour (32 MB)."""
        table = np.full(2**24 if self.colors else 2**16, NONE, np.uint16)
        keys = np.array([*self.meaning])
        table[pack_colors(keys[None])[0] if self.colors else keys] = [*self.meaning.values()]
        return table

    def regrouped(self, ids: Mapping[int, int]) -> Self:
        """Return this lookup with new class ids; `ids` maps old ids to new ones."""
        found = copy(self)
        found.__dict__.pop("_table", None)
        found.meaning = {value: ids.get(label, label) for value, label in self.meaning.items()}
        return found

    def by_color(self, palette: Sequence[Color]) -> bool:
        """Return whether masks with this palette are read by its colours and not by their indices."""
        return self.in_color or (self.colors and bool(palette) and all(len({*color}) == 1 for color in palette))

    def read(self, file: Path, lossy: bool) -> NDArray[Any]:
        """Return the values or colours of a mask file. Errors are those of `read_mask`."""
        with opened(file) as raster:
            return raster.labels(self.most, lossy, self.by_color(raster.palette))

    def labels_of(self, mask: MaskStatistics) -> NDArray[np.uint16]:
        """Return the label `(n,)` of each value of a mask: 255 if ignored, `NONE` without a class."""
        try:
            return self.find((mask.in_color if self.by_color(mask.palette) else mask).values[None])[0]  # type: ignore[no-any-return]
        except ValueError:  # colours among ids, or 16 bits among colours
            return np.full(len(mask.values), NONE, np.uint16)


class IdLookup(MaskLookup):
    """Lookup for masks of class ids; 255 and the values of `ignore` become 255."""

    def __init__(
        self,
        classes: int,
        ignore: tuple[int, ...] = (),
        remedy: str = "correct the mask, or give data.num_classes or data.classes for all values, with the background "
        "if it is 0, or data.ignore for ignored ones, or data.palette for colours",
    ) -> None:
        self.classes, void = classes, sorted({IGNORE, *ignore})
        wrong = f"is out of range 0 to {classes - 1} (ignored: {', '.join(map(str, void))})"
        meaning = {index: index for index in range(classes)} | dict.fromkeys(void, IGNORE)
        super().__init__(meaning, wrong, remedy)


class ColorLookup(MaskLookup):
    """Lookup for masks of colours, given in the order of the ids or as a mapping; colours of `ignore` become 255.

    Args:
        tolerance: largest RGB distance, 0 to 442, at which another colour counts as the nearest of these.
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
        if self.tolerance and (found == NONE).any():  # add new colours to the table
            keys = np.unique(pack_colors(mask)[found == NONE])
            labels = np.array([*self.meaning.values()], np.uint16)
            distances, at = KDTree(np.array([*self.meaning])).query(unpack_colors(keys))
            self._table[keys] = np.where(distances <= self.tolerance, labels[at], NONE)
            found = super().find(mask)
        return found


class InstanceLookup(MaskLookup):
    """Lookup for instance masks, which number objects, with the classes of `three_classes`."""

    most = MOST
    classes: Sequence[int] = range(len(CLASSES))

    def __init__(self) -> None:
        super().__init__({0: 0, **dict.fromkeys(range(1, 2**16), 1)}, "", "")  # without borders

    @staticmethod
    def numbers(mask: NDArray[Any]) -> NDArray[np.int32]:
        """Return the object numbers `(H, W)` of a mask from `read_mask`; colours raise a `ValueError`."""
        return grey(mask, "give an instance mask, 0 and a number for each object").astype(np.int32, copy=False)

    def regrouped(self, ids: Mapping[int, int]) -> Self:
        found = super().regrouped(ids)
        found.classes = [ids[label] for label in range(len(CLASSES))]
        return found

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        return np.array(self.classes, np.uint16).take(three_classes(self.numbers(mask)))


def three_classes(numbers: NDArray[np.integer], radius: int = BORDER) -> NDArray[np.uint8]:
    """Return the classes `(H, W)` of a map of object numbers `(H, W)`, in which 0 is no object.

    A pixel is border (2) if the pixels up to `radius` away, between centres and including itself, belong to two or more
    objects. Other pixels of objects are object (1). All other pixels are background (0).
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    exact = numbers.astype(np.float32)
    largest, smallest = cv2.dilate(exact, disk), cv2.erode(np.where(exact > 0, exact, np.float32(np.inf)), disk)
    return np.where(smallest < largest, np.uint8(2), (numbers > 0).view(np.uint8))


def grey(mask: NDArray[Any], remedy: str) -> NDArray[Any]:
    """Return a mask `(H, W)` or `(H, W, 3)` as one channel; colours raise a `ValueError` that ends with the remedy."""
    if mask.ndim == 2:
        return mask
    if (mask == mask[..., :1]).all():
        return mask[..., 0]
    colors = np.unique(mask.reshape(-1, 3), axis=0).tolist()
    raise ValueError(f"an RGB mask, with the colours {few(colors, 12)}; {remedy}")
