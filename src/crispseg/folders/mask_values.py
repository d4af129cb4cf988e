"""What readers of masks ask about their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from crispseg.folders.facts import MaskFacts
from crispseg.folders.lookup import DEEP_WHITE
from crispseg.labels import IGNORE, Color

Masks: TypeAlias = Sequence[MaskFacts]

WHITES = {IGNORE, DEEP_WHITE}
MOST_IDS = 20  # largest number of undeclared classes in a mask; more values may number objects or be shades
NOISE = 32  # largest change of black and white by JPEG compression, but for a few pixels at edges
MOSTLY = 0.5  # share of unlabelled pixels above which masks are partly labelled, as with strokes
THRESHOLD = 255  # tolerance with which a black and white palette is a threshold at 128


def values_of(masks: Iterable[MaskFacts]) -> set[int]:
    """Return the values of all grey masks."""
    return set[int]().union(*(mask.held for mask in masks))


def pixels_of(masks: Iterable[MaskFacts]) -> Counter[Any]:
    """Return the pixel count of each value or colour in their order."""
    pixels: Counter[Any] = Counter()
    for mask in masks:
        pixels.update(mask.pixels)
    return Counter(dict(sorted(pixels.items())))


def plausible(ids: set[int]) -> bool:
    """Return whether undeclared values look like class ids: at least half of 0 to the last occur."""
    return bool(ids) and 2 * len(ids) > max(ids)


def palettes_differ(masks: Iterable[MaskFacts]) -> bool:
    """Return whether a colour of palette files has several indices, so that indices have no fixed meaning."""
    indices: dict[Color, int] = {}
    for mask in masks:
        for color, index in used_colors(mask).items():
            if indices.setdefault(color, index) != index:
                return True
    return False


def used_colors(mask: MaskFacts) -> dict[Color, int]:
    """Return colour → index of the used values of a palette file.

    It is empty if two values have one colour, and without any label, whose colour may be that of an unused index.
    """
    used = [index for index in mask.held if index < len(mask.palette) and mask.held != {IGNORE}]
    colors = {mask.palette[index]: index for index in used}
    return colors if len(colors) == len(used) else {}
