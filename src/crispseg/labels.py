"""Names and colours of classes, and the id of ignored pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CONTROL, CrispsegError, did_you_mean

IGNORE = 255
"""Label of ignored pixels; no loss or metric counts them."""

Color: TypeAlias = tuple[int, int, int]
"""RGB colour, each value 0 to 255."""

BACKGROUND: Color = (128, 128, 128)
"""Default colour of a class named background."""

USUAL_COLORS: dict[Color, str] = {
    (0, 114, 178): "water river lake sea ocean",
    (0, 158, 115): "vegetation tree trees forest grass plant crop leaf",
    (86, 180, 233): "sky",
    (213, 94, 0): "building buildings house roof",
    (240, 228, 66): "road roads street",
    (204, 160, 110): "land soil ground sand bare",
}
"""Colours that people expect of classes, and names of the classes; colour-blind people can tell them apart."""


@dataclass(frozen=True)
class LabelSet:
    """Names and RGB colours (0 to 255) of 2 to 255 classes, in the order of the ids."""

    names: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= IGNORE:
            raise CrispsegError(f"the number of class names is {len(self.names)}; give 2 to {IGNORE}, with background")
        if len(self.palette) != len(self.names):
            raise CrispsegError(f"{len(self.names)} class names but {len(self.palette)} colours; give one per class")
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise CrispsegError(f"the class name '{name}' occurs more than once; give each class its own name")
        for name in self.names:
            if not name.strip() or CONTROL.search(name):
                raise CrispsegError(f"the class name {name!r} is empty or has control characters; write it in one line")
        for color in self.palette:
            if len(color) != 3 or not all(0 <= level <= 255 for level in color):
                raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")

    @classmethod
    def colored(cls, names: Sequence[str]) -> LabelSet:
        """Return classes with these names in the default colours.

        A background has the colour `BACKGROUND`, and the first class of a kind in `USUAL_COLORS` has its colour.
        """
        colors = [*default_palette(len(names))]
        background = cls(tuple(names), tuple(colors)).background
        for color, kind in USUAL_COLORS.items():
            member = next((index for index, name in enumerate(names) if name.lower() in kind.split()), None)
            if member is not None:
                colors[member] = color
        if background is not None:
            colors[background] = BACKGROUND
        return cls(tuple(names), tuple(colors))

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """Return classes "class 0", "class 1", … in the default colours."""
        return cls.colored([f"class {index}" for index in range(count)])

    @property
    def background(self) -> int | None:
        """Id of the class named background, or None; underscores around the name are ignored."""
        return next((index for index, name in enumerate(self.names) if name.strip("_").lower() == "background"), None)

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the classes without the background."""
        return tuple(name for index, name in enumerate(self.names) if index != self.background)

    @property
    def legend(self) -> list[tuple[str, Color]]:
        """Names and colours of the classes."""
        return [*zip(self.names, self.palette, strict=True)]

    def index(self, name: str) -> int:
        """Return the id of a class; an unknown name raises a `CrispsegError`."""
        if name not in self.names:
            raise CrispsegError(f"there is no class {name!r}{did_you_mean(str(name), self.names)}")
        return self.names.index(name)

    def regrouped(self, merge: Mapping[str, Sequence[str]], drop: Sequence[str]) -> tuple[LabelSet, dict[int, int]]:
        """Return the classes after merging and dropping some, and the new id of each; dropped classes become 255.

        A merged class has the colour of the class with its name or, for a new name, of its first member. An unknown
        name, or one that is merged or dropped more than once, raises a `CrispsegError`.
        """
        target: dict[str, str] = {}
        moved = [*drop]
        for new, names in merge.items():
            target |= dict.fromkeys(names, new)
            moved += [name for name in names if name != new]
        if twice := next((name for name in moved if moved.count(name) > 1 or name in merge), None):
            raise CrispsegError(f"the class '{twice}' is merged or dropped more than once; name it once")
        new_names = {name: target.get(name, name) for name in self.names if name not in drop}
        colors = dict(self.legend)
        for name in (*target, *drop):
            self.index(name)  # raises an error for an unknown class
        classes = tuple(dict.fromkeys(new_names.values()))
        firsts = {new: colors.get(new, colors[name]) for name, new in reversed(new_names.items())}
        ids = dict.fromkeys(range(len(self.names)), IGNORE)
        for name, new in new_names.items():
            ids[self.names.index(name)] = classes.index(new)
        return LabelSet(classes, tuple(firsts[name] for name in classes)), ids

    def __len__(self) -> int:
        return len(self.names)


def default_palette(count: int) -> tuple[Color, ...]:
    """Return colours that differ clearly from each other, black, white and `BACKGROUND`, also for colour-blind people.

    There are at most 255; a smaller palette is the beginning of a larger one.
    """
    colors = []
    for digits in _PALETTE_DIGITS.split()[:count]:
        red, green, blue = (17 * int(digit, 16) for digit in digits)
        colors.append((red, green, blue))
    return tuple(colors)


_PALETTE_DIGITS = """
5be e90 b0f b01 db9 069 ae7 a75 bbc 64b b7f e63 754 7f4 7b5 89b b09 edc 656 28c cdf a98 7d4 361 26f b43 876 f8e bd8
d4c 678 9ba c97 d70 61f 6aa 95d 273 54d a8e b60 ddd 2d5 cd0 bb7 f39 0eb 3a3 a26 c25 dad 95a 9b2 96f 1f5 d8c 7a5 ccf
c14 68a 9ea 399 866 dcd daf 0b7 b3b b07 a62 ab4 757 987 c20 f89 996 dc9 694 90d a28 abb 83a c6d b9f 8c6 a6e 765 66b
aab 91b ccc b12 a9d ce9 72e b94 c5a 065 ad7 be8 d36 eba 9c1 658 c2d a3c e33 b79 7ee cb8 852 779 d8a f6d 07d 75c ca8
19d 8b9 c47 474 a33 2fc 5cd 74e 90c bce 9e6 6da 87b e38 e5c 88b d9c eb4 94a ecb 990 38e 9d6 9a9 849 aa6 9cb f45 593
b76 0e5 784 ce0 beb f3b fce d3e b48 b8f 895 fd4 4bb 287 698 6b3 396 a8c ec3 d1f 5ad c6a 5c5 381 7df bc7 c0a 7dc 864
f9e 6c7 6cf 669 b25 773 ba3 5b6 d42 9a7 da4 cc8 8dd 73c dd9 81f f20 eda 377 c27 a6c d68 94e fbc 19b 67f 05f a84 a0e
70e aaf 364 e5e f75 daa 57b a93 897 9c9 d12 492 7b8 462 d9e 95c 846 fd8 ac5 e73 a0a a7d ebe acd d7a 848 d04 d7f cb6
d96 69e 8a4 659 f46 be5 1f9 f85 4cb a43 ca0 db3 15b d01 86e 6e2 adb c77 e1b bca c90 a25 54c
"""
"""One hexadecimal digit each for red, green and blue."""


def voc_palette(count: int) -> tuple[Color, ...]:
    """Return PASCAL VOC's colours: id bits 0, 3, 6 become red's highest bits, 1, 4, 7 green's and 2, 5 blue's."""

    def level(index: int, channel: int) -> int:
        return sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))

    return tuple((level(index, 0), level(index, 1), level(index, 2)) for index in range(count))


def color_table(palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return the RGB of the values 0 to 255, `(256, 3)`; values without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table
