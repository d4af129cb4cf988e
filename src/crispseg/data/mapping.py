"""The label mapping of data, to be looked at: what the masks hold, and which class each of it means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from crispseg.data.base import Decoder, IdDecoder
from crispseg.data.camvid import CLASSES, GROUPS, decode_colors
from crispseg.data.folder import ColorDecoder
from crispseg.data.layouts import TableDecoder
from crispseg.labels import IGNORE, Color, LabelSet


class Meaning(NamedTuple):
    """What some values, or colours, of masks mean."""

    values: str
    """As they are in the files: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    label: int
    """The class id; 255 means ignore."""
    name: str
    color: Color


def mapping(decode: Decoder, labels: LabelSet) -> list[Meaning]:
    """A line for each class, in the order of the ids, and one for what is ignored.

    Args:
        decode: what a data set decodes its masks by.
        labels: its classes.

    Raises:
        TypeError: a decoder that does not say what it maps.
    """
    values: dict[int, str] = {}
    if isinstance(decode, TableDecoder):
        by_label: dict[int, list[int]] = {IGNORE: [IGNORE]}
        for value, label in enumerate(decode.table):
            by_label.setdefault(label, []).append(value)
        values = {label: spans(found) for label, found in by_label.items()}
    elif isinstance(decode, IdDecoder):
        values = {index: str(index) for index in range(decode.classes)}
        values[IGNORE] = spans({IGNORE, *decode.ignore})
    elif isinstance(decode, ColorDecoder):
        values = {index: _colors([color]) for index, color in enumerate(decode.palette)}
        values[IGNORE] = _colors(decode.ignore)
    elif decode is decode_colors:
        for index, name in [*enumerate(CLASSES), (IGNORE, None)]:
            values[index] = ", ".join(
                f"{_colors([color])} {original}" for original, (color, group) in GROUPS.items() if group == name
            )
    else:
        raise TypeError(f"{decode!r} does not say what it maps")
    rows = [
        Meaning(values.get(index, "–"), index, name, color)
        for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True))
    ]
    return [*rows, Meaning(values[IGNORE], IGNORE, "ignored", (0, 0, 0))] if values[IGNORE] else rows


def spans(values: Iterable[int]) -> str:
    """Numbers in order, those in a row as "first–last"."""
    ordered = sorted(set(values))
    if not ordered:
        return ""
    breaks = [0, *(index for index, (one, other) in enumerate(pairwise(ordered), 1) if other > one + 1), len(ordered)]
    runs = [(ordered[start], ordered[end - 1]) for start, end in pairwise(breaks)]
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def _colors(colors: Sequence[Color]) -> str:
    return ", ".join(str(list(color)) for color in colors)
