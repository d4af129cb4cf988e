"""From what the masks of a data set hold, values or colours, to class ids; and the same as a table to be looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.labels import IGNORE, Color, LabelSet


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


DEEP_WHITE = 0xFFFF
"""What 255 becomes in files of 16 bits."""


class ValueLookup:
    """Masks whose values mean classes. An RGB mask counts as grey where its three channels agree everywhere.

    Args:
        meaning: the class id of each mask value, or 255 to ignore it. 255 itself is ignored in any case, and any other
            value is refused.
        remedy: what to do about a mask that has colours.
        refusal: what is wrong with a value without meaning, and what to do.
    """

    def __init__(self, meaning: Mapping[int, int], remedy: str, refusal: str) -> None:
        self.meaning, self.remedy, self.refusal = {**meaning, IGNORE: IGNORE}, remedy, refusal
        self._labels = np.full(2**16, IGNORE + 1, np.uint16)  # of each 8-bit or 16-bit value
        self._labels[list(self.meaning)] = list(self.meaning.values())

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        mask = grey(mask, self.remedy)
        labels = self._labels.take(mask)
        if labels.max() > IGNORE:
            wrong = np.unique(mask[labels > IGNORE])
            more = f" (and {len(wrong) - 5} more: does it number objects?)" if len(wrong) > 5 else ""
            raise ValueError(f"value {', '.join(map(str, wrong[:5]))}{more} {self.refusal}")
        return labels.astype(np.uint8)


class TableLookup(ValueLookup):
    """Masks of a public data set, whose values mean classes by a table; errors call the values `values`."""

    def __init__(self, meaning: Mapping[int, int], values: str) -> None:
        refusal = f"is none of the {values}, 0 to {max(meaning)}; restore the original mask"
        super().__init__(meaning, f"give the original mask, of {values}", refusal)


class IdLookup(ValueLookup):
    """Masks whose values are class ids: 255 and the values of `ignore` become 255, ids are kept."""

    def __init__(
        self, classes: int, ignore: tuple[int, ...] = (), remedy: str = "say what they mean, by --data.palette"
    ) -> None:
        void = ", ".join(map(str, sorted({IGNORE, *ignore})))
        refusal = (
            f"is out of range 0 to {classes - 1} (ignored: {void}); "
            "correct the mask, the number of classes or the ignored values"
        )
        super().__init__(
            {**{index: index for index in range(classes)}, **dict.fromkeys(ignore, IGNORE)}, remedy, refusal
        )


@dataclass(frozen=True)
class ColorLookup:
    """Masks whose colours mean classes; a grey value v is the colour (v, v, v), and 65535 beside 0 alone is white.

    Args:
        palette: the colours.
        ignore: further colours, whose pixels become 255.
        ids: the class id of each colour of `palette`, or 255; by default they are numbered.
        names: what the colours are called, if not by the name of the class.
        refusal: what is wrong with a colour that is none of these, and what to do.
        if_grey: what else may be done where the mask is grey.
    """

    palette: tuple[Color, ...]
    ignore: tuple[Color, ...] = ()
    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    refusal: str = "is not in data.palette; add it there or to data.ignore"
    if_grey: str = " or, if the values are class ids, leave data.palette out"

    @property
    def meaning(self) -> dict[Color, int]:
        """The class id, or 255, of each colour."""
        ids = self.ids or range(len(self.palette))
        return {**dict.fromkeys(self.ignore, IGNORE), **dict(zip(self.palette, ids, strict=True))}

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        if mask.dtype != np.uint8 and np.isin(mask, (0, DEEP_WHITE)).all():
            mask = (mask >> 8).astype(np.uint8)  # black and white
        if mask.dtype != np.uint8 and mask.max() <= 0xFF:
            mask = mask.astype(np.uint8)
        if mask.dtype != np.uint8:
            raise ValueError("16-bit values, which no palette of 8-bit colours can decode; save the mask with 8 bits")
        packed = pack_colors(np.repeat(mask[..., None], 3, axis=-1) if mask.ndim == 2 else mask)
        labels = _color_table(self).take(packed)
        void = packed[labels == IGNORE]
        strange, counts = np.unique(void[~np.isin(void, pack_colors(np.array([*self.meaning])))], return_counts=True)
        if len(strange):
            most = counts.argmax()
            color = [int(strange[most]) >> shift & 0xFF for shift in (16, 8, 0)]
            others = f" (and {len(strange) - 1} other colours)" if len(strange) > 1 else ""
            hint = self.if_grey if mask.ndim == 2 else ""
            raise ValueError(f"the colour {color} of {counts[most]} pixels{others} {self.refusal}{hint}")
        return labels


PURE = "is neither black nor white, as masks are by data.palette; correct the mask, or give --data.ignore"
IF_IDS = " or, if the values are class ids, --data.palette null"
"""What a `ColorLookup` of black and white, which may not have been declared, says."""

BORDER = 2
"""Pixels from two objects up to which one is on the border between them."""

CLASSES = "background", "object", "border"
"""What `three_classes` tells apart, unless objects have a name."""

MOST = 2**24
"""The largest number of an object: float32, in which OpenCV dilates, holds every whole number up to it, and tables have
a row for each."""


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


class InstanceLookup:
    """Instance masks, which number objects, with the classes of `three_classes`."""

    meaning: ClassVar[Mapping[int, int]] = {0: 0, **dict.fromkeys(range(1, 2**16), 1)}
    """The class of each number of 16 bits where no border is near."""

    @staticmethod
    def numbers(mask: NDArray[Any]) -> NDArray[np.int32]:
        """The object numbers `(H, W)` of a mask as `read_mask` gives it.

        Raises:
            ValueError: it has colours.
        """
        return grey(mask, "give an instance mask, 0 and a number for each object").astype(np.int32, copy=False)

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        return three_classes(self.numbers(mask))


MaskLookup: TypeAlias = ValueLookup | ColorLookup | InstanceLookup
"""A mask as `read_mask` gives it → class ids `(H, W)`. Its ValueError says what is wrong and the remedy."""


def pack_colors(colors: NDArray[Any]) -> NDArray[np.uint32]:
    """Colours `(..., 3)` of 0 to 255 as single numbers `(...)`."""
    red, green, blue = (colors[..., channel].astype(np.uint32) for channel in range(3))
    return (red << np.uint32(16)) | (green << np.uint32(8)) | blue


@lru_cache(maxsize=2)  # 16 MB each
def _color_table(lookup: ColorLookup) -> NDArray[np.uint8]:
    """The class of each of the 2^24 packed colours, 255 for those of none."""
    table = np.full(2**24, IGNORE, np.uint8)
    table[pack_colors(np.array([*lookup.meaning]))] = list(lookup.meaning.values())
    return table


class Meaning(NamedTuple):
    """What some values, or colours, of masks mean."""

    values: str
    """As they are in the files: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    label: int
    """The class id; 255 means ignore."""
    name: str
    color: Color


def mapping(lookup: MaskLookup | None, labels: LabelSet) -> list[Meaning]:
    """What a lookup makes of masks: a line for each class, in the order of the ids, and one for what is ignored.

    Without a lookup, of data that are not made of files, the values are empty.
    """
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items() if lookup else ():
        found[label].append(value)
    if isinstance(lookup, ColorLookup):
        names = {color: f" {name}" for color, name in zip(lookup.palette, lookup.names, strict=bool(lookup.names))}
        shown = {
            label: ", ".join(f"{list(one)}{names.get(one, '')}" for one in every) for label, every in found.items()
        }
    else:
        shown = {label: spans(every) for label, every in found.items()}
    rows = [
        Meaning(shown.get(index, "–" if lookup else ""), index, name, color)
        for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True))
    ]
    return [*rows, Meaning(shown[IGNORE], IGNORE, "ignored", (0, 0, 0))] if IGNORE in shown else rows


def spans(values: Iterable[int]) -> str:
    """Numbers in order, those in a row as "first–last"."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)
