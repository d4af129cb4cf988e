"""Lookup tables from the values or colours of masks to class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.errors import few
from crispseg.folders.facts import MaskFacts, pack_colors, unpack_colors
from crispseg.io.opening import opened
from crispseg.labels import IGNORE, Color

NONE = IGNORE + 1  # result of `MaskLookup.find` for a value without a class
DEEP_WHITE = 0xFFFF  # white in 16-bit files, like 255 in 8-bit files
BORDER = 2  # largest distance in pixels to two objects at which a pixel is on their border
INSTANCE_CLASSES = "background", "object", "border"  # default names of the classes of `three_classes`
MAX_NUMBER = 2**24  # number of an object; float32, in which OpenCV dilates, is exact up to it


class MaskLookup:
    """Conversion of masks from `read_mask` to class ids `(H, W)`, with 255 for ignored pixels.

    Args:
        meaning: class id, or 255, of each value or colour; a grey value v is the colour (v, v, v).
        wrong: error message for any other value or colour.
        remedy: its remedy.
    """

    most = 0xFFFF  # largest value that is read
    adjustable = False
    tolerance = 0.0  # largest RGB distance at which a colour counts as another; lossy masks need more than 0

    by_pixel = False  # whether a label also depends on neighbouring pixels

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
        lookup = copy(self)
        lookup.__dict__.pop("_table", None)
        lookup.meaning = {value: ids.get(label, label) for value, label in self.meaning.items()}
        return lookup

    def by_color(self, palette: Sequence[Color]) -> bool:
        """Return whether masks with this palette are read by its colours and not by their indices."""
        return self.in_color or (self.colors and bool(palette) and all(len({*color}) == 1 for color in palette))

    def read(self, file: Path) -> NDArray[Any]:
        """Return the values or colours of a mask file. Errors are those of `read_mask`."""
        with opened(file) as raster:
            return raster.labels(self.most, self.tolerance > 0, self.by_color(raster.palette))

    def labels_of(self, mask: MaskFacts) -> NDArray[np.uint16]:
        """Return the label `(n,)` of each value of a mask: 255 if ignored, `NONE` without a class."""
        try:
            return self.find((mask.in_color if self.by_color(mask.palette) else mask).values[None])[0]  # type: ignore[no-any-return]
        except ValueError:  # colours among ids, or 16 bits among colours
            return np.full(len(mask.values), NONE, np.uint16)


class IdLookup(MaskLookup):
    """Lookup for masks of class ids; 255 and the values of `ignore` become 255."""

    def __init__(self, classes: int, ignore: tuple[int, ...] = ()) -> None:
        self.classes, void = classes, sorted({IGNORE, *ignore})
        wrong = f"is out of range 0 to {classes - 1} (ignored: {', '.join(map(str, void))})"
        remedy = (
            "correct the mask, or give data.num_classes or data.classes for all values, with the background if it is "
            "0, or data.ignore for ignored ones, or data.palette for colours"
        )
        meaning = {index: index for index in range(classes)} | dict.fromkeys(void, IGNORE)
        super().__init__(meaning, wrong, remedy)


class ColorLookup(MaskLookup):
    """Lookup for masks of colours, given in the order of the ids or as a mapping; colours of `ignore` become 255.

    Args:
        tolerance: largest RGB distance, 0 to 442, at which another colour counts as the nearest of these.
        adjustable: whether the user can set the tolerance.
    """

    def __init__(
        self,
        palette: Sequence[Color] | Mapping[Color, int],
        ignore: Sequence[Color] = (),
        wrong: str = "is not in data.palette",
        remedy: str = "add it there or to data.ignore",
        tolerance: float = 0,
        adjustable: bool = False,
    ) -> None:
        ids = palette.values() if isinstance(palette, Mapping) else range(len(palette))
        self.palette, self.tolerance, self.adjustable = (*palette,), tolerance, adjustable
        super().__init__(dict.fromkeys(ignore, IGNORE) | dict(zip(palette, ids, strict=True)), wrong, remedy)

    def find(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        ids = super().find(mask)
        if self.tolerance and (ids == NONE).any():  # add new colours to the table
            keys = np.unique(pack_colors(mask)[ids == NONE])
            labels = np.array([*self.meaning.values()], np.uint16)
            from scipy.spatial import KDTree  # the import takes a third of a second, which help need not wait for

            distances, nearest = KDTree(np.array([*self.meaning])).query(unpack_colors(keys))
            self._table[keys] = np.where(distances <= self.tolerance, labels[nearest], NONE)
            ids = super().find(mask)
        return ids


class InstanceLookup(MaskLookup):
    """Lookup for instance masks, which number objects, with the classes of `three_classes`."""

    most = MAX_NUMBER
    by_pixel = True
    classes: Sequence[int] = range(len(INSTANCE_CLASSES))

    def __init__(self) -> None:
        super().__init__({0: 0, **dict.fromkeys(range(1, 2**16), 1)}, "", "")  # without borders

    @staticmethod
    def numbers(mask: NDArray[Any]) -> NDArray[np.int32]:
        """Return the object numbers `(H, W)` of a mask from `read_mask`; colours raise a `ValueError`."""
        return grey(mask, "give an instance mask, 0 and a number for each object").astype(np.int32, copy=False)

    def regrouped(self, ids: Mapping[int, int]) -> Self:
        lookup = super().regrouped(ids)
        lookup.classes = [ids[label] for label in range(len(INSTANCE_CLASSES))]
        return lookup

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
