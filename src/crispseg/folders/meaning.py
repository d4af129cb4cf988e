"""What the masks of a folder mean, as declared by the user and as read from their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crispseg.folders.lookup import MaskLookup
from crispseg.labels import Color, LabelSet

BLACK_AND_WHITE: Mapping[Color, int] = {(0, 0, 0): 0, (255, 255, 255): 1}


@dataclass(frozen=True)
class Declared:
    """What the user declares about masks."""

    count: int | None = None  # number of classes
    names: tuple[str, ...] | None = None
    palette: Mapping[Color, int] | None = None  # colour → class
    ignore: tuple[Any, ...] = ()  # values to ignore in addition to 255, or colours if there is a palette
    tolerance: float = 0  # of the palette, see `ColorLookup`
    instances: bool = False  # whether masks number objects
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)  # class → classes to merge into it
    drop: Sequence[str] = ()  # classes to ignore

    def labels(self, count: int) -> LabelSet:
        """Return `count` classes with the declared names and colours; a palette of greys is not used to draw."""
        first = "background" if self.palette == BLACK_AND_WHITE else "class 0"
        names = self.names or (first, *(f"class {index}" for index in range(1, count)))
        colors: dict[int, Color] = {}
        for color, index in (self.palette or {}).items():
            colors.setdefault(index, color)
        drawn = any(len({*color}) > 1 for color in colors.values())
        return LabelSet(names, tuple(colors[index] for index in range(count))) if drawn else LabelSet.colored(names)


@dataclass(frozen=True)
class Meaning:
    """Classes, and the class of each mask value or colour."""

    labels: LabelSet
    lookup: MaskLookup

    def regrouped(self, merge: Mapping[str, Sequence[str]], drop: Sequence[str]) -> Meaning:
        """Return the meaning after merging and dropping classes; see `LabelSet.regrouped` for errors."""
        labels, ids = self.labels.regrouped(merge, drop)
        return replace(self, labels=labels, lookup=self.lookup.regrouped(ids))
