"""Interface of readers of mask values, and what they ask about masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from crispseg.folders.facts import MaskFacts
from crispseg.folders.lookup import DEEP_WHITE
from crispseg.folders.meaning import Declared, Meaning
from crispseg.labels import IGNORE, Color

Masks: TypeAlias = Sequence[MaskFacts]
WHITES = {IGNORE, DEEP_WHITE}


class Reader(ABC):
    """One way to read masks. Readers exclude each other, or the user is asked."""

    @abstractmethod
    def fits(self, declared: Declared, masks: Masks) -> bool:
        """Return whether the masks can be read in this way."""

    @abstractmethod
    def meaning(self, declared: Declared, masks: Masks) -> Meaning:
        """Return the meaning of masks that fit."""


def values_of(masks: Iterable[MaskFacts]) -> set[int]:
    """Return the values of all grey masks."""
    return set[int]().union(*(mask.held for mask in masks))


def palettes_differ(masks: Iterable[MaskFacts]) -> bool:
    """Return whether a colour of palette files has several indices, so that indices have no fixed meaning."""
    indices: dict[Color, int] = {}
    for mask in masks:
        for color, index in used_colors(mask).items():
            if indices.setdefault(color, index) != index:
                return True
    return False


def used_colors(mask: MaskFacts) -> dict[Color, int]:
    """Return colour → index of the used values of a palette file; nothing if two values have one colour."""
    used = [index for index in mask.held if index < len(mask.palette)] if mask.palette else []
    colors = {mask.palette[index]: index for index in used}
    return colors if len(colors) == len(used) else {}
