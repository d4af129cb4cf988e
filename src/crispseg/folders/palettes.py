"""Colours of classes: as declared, and from files of many programs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crispseg.config.files import read_text
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, few, one_line
from crispseg.folders.names import read_lines
from crispseg.labels import IGNORE, Color

BETWEEN_WORDS = re.compile(r"\s+")
BETWEEN_COLUMNS = re.compile(r"\s*[,:;]\s*|(?<=\d)\s+(?=\d+(?:[\s,:;]|$))")  # levels may be separated by spaces
OTHER_TITLES = {"red": "r", "green": "g", "blue": "b", "alpha": "a", "class": "name", "label": "name", "title": "name"}
TITLES = {"name", "id", "r", "g", "b", "a"}


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
    try:
        entries = in_order(read_entries(path))
    except (ValueError, TypeError, AttributeError, LookupError, CrispsegError) as error:
        example = "write lines such as '128 64 128 road', or for example {road: [128, 64, 128]} as YAML"
        raise CrispsegError(f"{path} has no valid colours ({one_line(error)}); {example}") from None
    named = all(entry.name is not None for entry in entries)
    groups: dict[str | int, list[Color]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(str(entry.name) if named else index, []).extend(entry.colors)
    if len(groups) < 2:
        raise CrispsegError(f"{path} has the colours of {len(groups)} class; write those of 2 or more, with background")
    return [*groups.values()], tuple(map(str, groups)) if named else None


def read_entries(path: Path) -> list[PaletteEntry]:
    """Return the entries of a file in their order; those that are no colours raise almost any error."""
    lines = read_lines(path)
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return from_tree(parse_yaml(read_text(path)))
    delimiter = max(",;\t", key=lines[0].count)
    words = [word.strip(' "').lower() for word in lines[0].split(delimiter)]
    titles = [OTHER_TITLES.get(word, word) for word in words]
    if {*"rgb"} <= {*titles}:
        return from_table(titles, csv.DictReader(lines[1:], titles, delimiter=delimiter, skipinitialspace=True))
    has_header = not any(character.isdigit() for character in lines[0])
    return [from_line(line.replace('"', "")) for line in lines[has_header:]]


def from_table(titles: Sequence[str], rows: Iterable[Mapping[str, str]]) -> list[PaletteEntry]:
    if unknown := {*titles} - TITLES:
        raise ValueError(f"the column {min(unknown)} is unknown; remove it, or call it name, id, r, g, b or a")
    entries = []
    for row in rows:
        number = int(row["id"]) if "id" in titles else None
        entries.append(PaletteEntry(row.get("name"), [parsed([row["r"], row["g"], row["b"]])], number))
    return entries


def from_line(line: str) -> PaletteEntry:
    """Return the entry of a line such as "128 64 128 road", "1 road 128 64 128" or "road:128,64,128::"."""
    columns = (BETWEEN_COLUMNS if re.search("[,:;]", line) else BETWEEN_WORDS).split(line.strip())
    numbers = "".join("1" if column.isdigit() else "0" for column in columns)
    if "1111" in numbers:
        remedy = "separate columns by commas, without alpha"
        raise ValueError(f"'{line:.200}' has more than three numbers in a row; {remedy}")
    if (start := numbers.find("111")) < 0:
        raise ValueError(f"'{line:.200}' is not 'r g b name'")
    before, colors = columns[:start], [parsed(columns[start : start + 3])]
    if numbers.startswith("10"):
        return PaletteEntry(" ".join(before[1:]), colors, int(before[0]))
    return PaletteEntry(" ".join(before or columns[3:]) or None, colors)


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
        levels = bytes.fromhex(color.lstrip("#")) if isinstance(color, str) else bytes(map(int, map(str, color)))
        red, green, blue = levels
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{color} is not a colour") from None
    return red, green, blue


def in_order(entries: list[PaletteEntry]) -> list[PaletteEntry]:
    """Return the entries sorted by id, if all have a valid one; repeated ids and gaps raise a `ValueError`."""
    ids = {entry.number for entry in entries}
    if not ids <= {*range(IGNORE)}:
        return entries
    classes = {index if entry.name is None else entry.name for index, entry in enumerate(entries)}
    if ids != {*range(len(classes))}:
        raise ValueError(f"{len(classes)} classes have the ids {few(ids)}; number them from 0, or remove the ids")
    return sorted(entries, key=lambda entry: entry.number or 0)


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
