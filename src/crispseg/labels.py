"""What class ids mean: names, colours, and the id that counts nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crispseg.errors import CrispsegError

IGNORE = 255
"""The label of pixels that count in no loss and no metric."""

Color: TypeAlias = tuple[int, int, int]
"""RGB, each 0 to 255."""


@dataclass(frozen=True)
class LabelSet:
    """What the class ids mean: one name and one RGB colour (0 to 255) for each, in the order of the ids.

    Raises:
        CrispsegError: fewer than 2 or more than 255 classes, a repeated name, not one colour a class, or no colours.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= IGNORE:
            raise CrispsegError(f"{len(self.names)} classes: 2 to {IGNORE} are possible; give a name for each class")
        if len(self.palette) != len(self.names):
            raise CrispsegError(f"{len(self.names)} class names but {len(self.palette)} colours; give one of each")
        for name in self.names:
            if self.names.count(name) > 1:
                raise CrispsegError(f"the class name '{name}' occurs more than once; give each class its own name")
        for color in self.palette:
            if len(color) != 3 or not all(0 <= level <= 255 for level in color):
                raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """Names "class 0", "class 1", … in the default colours."""
        return cls(tuple(f"class {index}" for index in range(count)), default_palette(count))

    def __len__(self) -> int:
        return len(self.names)


def default_palette(count: int) -> tuple[Color, ...]:
    """The colours of PASCAL VOC: bits 0, 3, 6 of the id become red's highest bits, 1, 4, 7 green's and 2, 5 blue's."""

    def level(index: int, channel: int) -> int:
        return sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))

    return tuple((level(index, 0), level(index, 1), level(index, 2)) for index in range(count))
