"""Colours of classes: as declared, and from files of many programs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crispseg.config.files import read_text
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, few, one_line
from crispseg.folders.names import read_lines
from crispseg.labels import IGNORE, Color

COLOR_FIRST = re.compile(r"(?P<color>\d+[\s,]+\d+[\s,]+\d+)(?:[\s,]+(?P<name>\S.*))?")
NAME_FIRST = re.compile(r"(?:(?P<id>\d+)[,\s]\s*(?=\D))?(?P<name>.*?)[\s,:]+(?P<color>\d+([\s,]+\d+){2})\s*(?::.*)?")
COLUMN_NAMES = {
    "red": "r",
    "green": "g",
    "blue": "b",
    "class": "name",
    "label": "name",
    "title": "name",
    "alpha": "a",
}
COLUMN_NAMES |= {title: title for title in ("r", "g", "b", "a", "name", "id")}


class PaletteEntry(NamedTuple):
    """A class in a palette file, or one of its colours."""

    name: str | None
    colors: list[Color]
    number: int | None = None  # its id


def read_palette(path: Path) -> tuple[list[list[Color]], tuple[str, ...] | None]:
    """Read the colours of each class, and the names if all have one; equal names are one class.

    JSON and YAML have {road: [128, 64, 128]}. CSV has the columns r, g, b, and optionally name, id and a. Text has
    lines "r g b name", "id name r g b" or CVAT's "name:r,g,b:parts:actions". Classes are in the order of ids below 255
    if all have one, else in file order.
    """
    lines = read_lines(path)
    try:
        if path.suffix.lower() in (".json", ".yaml", ".yml"):
            entries = from_tree(parse_yaml(read_text(path)))
        elif {*"rgb"} <= {*titles_of(lines[0])}:
            entries = from_table(lines)
        else:
            has_header = not any(character.isdigit() for character in lines[0])
            entries = [from_line(line.replace('"', "")) for line in lines[has_header:]]
        entries = in_order(entries)
        colors = [[*map(as_color, entry.colors)] for entry in entries]
    except (ValueError, TypeError, AttributeError, LookupError, CrispsegError) as error:
        example = "write lines such as '128 64 128 road', or for example {road: [128, 64, 128]} as YAML"
        raise CrispsegError(f"{path} has no valid colours ({one_line(error)}); {example}") from None
    named = bool(entries) and all(entry.name is not None for entry in entries)
    groups: dict[str | int, list[Color]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(str(entry.name) if named else index, []).extend(colors[index])
    if len(groups) < 2:
        raise CrispsegError(f"{path} has the colours of {len(groups)} class; write those of 2 or more, with background")
    return [*groups.values()], tuple(map(str, groups)) if named else None


def titles_of(header: str) -> list[str]:
    """Return the columns of a table by their usual names."""
    words = [word.strip(' "').lower() for word in header.split(delimiter_of(header))]
    return [COLUMN_NAMES.get(word, word) for word in words]


def delimiter_of(header: str) -> str:
    return max(",;\t", key=header.count)


def from_table(lines: Sequence[str]) -> list[PaletteEntry]:
    titles = titles_of(lines[0])
    if unknown := {*titles} - {*COLUMN_NAMES.values()}:
        raise ValueError(f"the column {min(unknown)} is unknown; remove it, or call it name, id, r, g, b or a")
    rows = csv.DictReader(lines[1:], titles, delimiter=delimiter_of(lines[0]), skipinitialspace=True)
    return [
        PaletteEntry(row.get("name"), [parsed([row["r"], row["g"], row["b"]])], number(row.get("id"))) for row in rows
    ]


def from_line(line: str) -> PaletteEntry:
    """Return the entry of a line such as "128 64 128 road", "1 road 128 64 128" or "road:128,64,128::"."""
    after = line.partition(":")[2] or line
    fields = re.split(r"\s*,\s*|(?<=\d)\s+(?=\d+(?:[\s,]|$))" if "," in after else r"\s+", after.strip())
    if "1111" in "".join("1" if field.isdigit() else "0" for field in fields):
        remedy = "separate columns by commas, without alpha"
        raise ValueError(f"'{line:.200}' has more than three numbers in a row; {remedy}")
    match = COLOR_FIRST.fullmatch(line) or NAME_FIRST.fullmatch(line)
    if match is None:
        raise ValueError(f"'{line:.200}' is not 'r g b name'")
    return PaletteEntry(
        match["name"], [parsed(re.findall(r"\d+", match["color"]))], number(match.groupdict().get("id"))
    )


def from_tree(tree: Any) -> list[PaletteEntry]:
    """Return the entries of names with their colours."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"it is a {type(tree).__name__}, not a mapping of names to colours")
    if numbers := [key for key in tree if not isinstance(key, str) or key.isdecimal()]:
        raise ValueError(f"{numbers[0]} is no name; give the colours of ids as a list in data.palette")
    return [PaletteEntry(name, colors_of(color)) for name, color in tree.items()]


def colors_of(value: Any) -> list[Color]:
    """Return the colours of a class: one, or a list of several."""
    several = isinstance(value, list) and any(isinstance(color, list) for color in value)
    return [parsed(color) for color in (value if several else [value])]


def parsed(color: str | Iterable[Any]) -> Color:
    """Return a colour from "#804080" or three numbers."""
    try:
        red, green, blue = bytes.fromhex(color.lstrip("#")) if isinstance(color, str) else map(int, map(str, color))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{color} is not a colour") from None
    return red, green, blue


def number(text: str | None) -> int | None:
    return None if text is None else int(text)


def in_order(entries: list[PaletteEntry]) -> list[PaletteEntry]:
    """Return the entries sorted by id, if all have a valid one; repeated ids and gaps raise a `ValueError`."""
    ids = [entry.number for entry in entries]
    names = {entry.name for entry in entries}
    if not {*range(IGNORE)}.issuperset(ids):
        return entries
    classes = len(entries) if None in names else len(names)
    if {*ids} != {*range(classes)}:
        raise ValueError(f"{classes} classes have the ids {few({*ids})}; number them from 0, or remove the ids")
    return [entries[index] for index in np.argsort(np.array(ids), kind="stable")]


def as_color(value: int | Color) -> Color:
    """Return the colour of a value; a grey value v is (v, v, v). Levels above 255 raise a `CrispsegError`."""
    color = (value, value, value) if isinstance(value, int) else value
    if not all(0 <= level <= IGNORE for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color


def numbered_colors(
    palette: Sequence[Color | list[Color]] | str | Path,
) -> tuple[dict[Color, int], tuple[str, ...] | None]:
    """Return colour → class, and class names if known; a colour that two classes share raises a `CrispsegError`."""
    if isinstance(palette, (str, Path)):
        groups, names = read_palette(Path(palette))
    else:
        groups, names = [group if isinstance(group, list) else [group] for group in palette], None
    classes: dict[Color, int] = {}
    for index, group in enumerate(groups):
        for color in group:
            if classes.setdefault(as_color(color), index) != index:
                remedy = "use different colours"
                raise CrispsegError(f"data.palette gives the colour {list(as_color(color))} to two classes; {remedy}")
    return classes, names
