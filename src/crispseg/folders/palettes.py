"""Colours of classes: as declared, and from files of many programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from crispseg.config.files import read_text
from crispseg.config.settings import checked
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, one_line
from crispseg.folders.names import read_lines
from crispseg.labels import IGNORE, Color

Colors: TypeAlias = Color | Annotated[list[Color], Field(min_length=1)]
"""Colour of a class, or several."""


def read_palette(path: Path) -> tuple[list[Colors], tuple[str, ...] | None]:
    """Read the colours of each class, and the names if all have one; equal names are one class.

    JSON and YAML have {road: [128, 64, 128]}. Text has lines "r g b name", "name,r,g,b" or CVAT's
    "name:r,g,b:parts:actions"; a first line without digits is a title. Classes are in file order.
    """
    try:
        if path.suffix.lower() in (".json", ".yaml", ".yml"):
            tree = checked(dict[str, Colors], parse_yaml(read_text(path)), "its content")
            return [*tree.values()], tuple(tree)
        lines = read_lines(path)
        has_title = not any(character.isdigit() for character in lines[0])
        entries = [from_line(line.replace('"', "")) for line in lines[has_title:]]
    except (ValueError, CrispsegError) as error:
        example = "write lines such as '128 64 128 road', or for example {road: [128, 64, 128]} as YAML"
        raise CrispsegError(f"{path} has no valid colours ({one_line(error)}); {example}") from None
    if not all(name for name, _ in entries):
        return [color for _, color in entries], None
    classes: dict[str, list[Color]] = {}
    for name, color in entries:
        classes.setdefault(name, []).append(color)
    return [*classes.values()], tuple(classes)


def from_line(line: str) -> tuple[str, Color]:
    """Return the name, which may be empty, and the colour in a line such as "road:128,64,128::"."""
    columns = re.split(r"\s*[,:;]\s*" if re.search("[,:;]", line) else r"\s+", line)
    name = [*takewhile(lambda column: not column.isdigit(), columns)]
    levels = [*map(int, takewhile(str.isdigit, columns[len(name) :]))]
    if len(levels) != 3:
        raise ValueError(f"'{line:.200}' is not 'r g b name' or 'name,r,g,b'; remove ids and alpha")
    return " ".join(name or columns[3:]), (levels[0], levels[1], levels[2])


def as_color(value: int | Color) -> Color:
    """Return the colour of a value; a grey value v is (v, v, v). Levels above 255 raise a `CrispsegError`."""
    color = (value, value, value) if isinstance(value, int) else value
    if not all(0 <= level <= IGNORE for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color


def numbered_colors(palette: Sequence[Colors] | str | Path) -> tuple[dict[Color, int], tuple[str, ...] | None]:
    """Return colour → class, and class names if known; a colour that two classes share raises a `CrispsegError`."""
    groups, names = read_palette(Path(palette)) if isinstance(palette, (str, Path)) else (palette, None)
    classes: dict[Color, int] = {}
    for index, group in enumerate(groups):
        for color in group if isinstance(group, list) else [group]:
            if classes.setdefault(as_color(color), index) != index:
                remedy = "use different colours"
                raise CrispsegError(f"data.palette gives the colour {list(color)} to two classes; {remedy}")
    return classes, names
