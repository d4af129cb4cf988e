"""What is declared of own data, in text files or in place of them: names of images and classes, and colours."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from crispseg.data.dataset import read_lines
from crispseg.data.pairing import few, pairing_fault
from crispseg.errors import CrispsegError
from crispseg.io.images import SUFFIXES
from crispseg.labels import Color


def chosen_names(path: Path, names: Sequence[str], unpaired: Collection[str]) -> list[str]:
    """The names that a list file means, given as names or file names, with or without their sub-folder.

    Folders in front that are none of the data's, and a mask's name behind the image's, do not count.

    Those of files without a partner, the `unpaired`, are left out.

    Raises:
        CrispsegError: the file cannot be read, or an entry names no image or more than one.
    """
    by_stem = defaultdict(list)
    for name in (*names, *unpaired):
        by_stem[PurePosixPath(name).name].append(name)
    known = {
        **{stem: full[0] for stem, full in by_stem.items() if len(full) == 1},
        **{name: name for name in (*names, *unpaired)},
    }
    keys = [_key(unicodedata.normalize("NFC", line), known, {*names, *unpaired}) for line in read_lines(path)]
    if unknown := [key for key in keys if key not in known]:
        pairing_fault(
            f"{len(unknown)} of {len(keys)} entries of {path} name no image, or more than one: {few(unknown)}; "
            "write one name a line, with its sub-folder",
            ("listed-file-missing", (f"{path}: {key}" for key in unknown)),
        )
    return sorted({known[key] for key in keys if key in known}.difference(unpaired))


def _key(line: str, known: Collection[str], full: Collection[str]) -> str:
    """The known name that a line of a list means, a `full` one behind other folders; the line where none fits."""
    first, *rest = re.split(r"[\s,;]+", line, maxsplit=1)
    two = rest and {PurePosixPath(one).suffix.lower() for one in (first, *rest)} <= {*SUFFIXES}
    for text in (line, first) if two else (line,):
        parts = PurePosixPath(text.replace("\\", "/")).parts
        for start in range(len(parts)):
            entry = PurePosixPath(*parts[start:])
            plain = entry.with_suffix("") if entry.suffix.lower() in SUFFIXES else entry
            for key in (str(entry), str(plain)):
                if key in (full if start else known):
                    return key
    return line


def class_names(classes: list[str] | str | Path) -> tuple[str, ...]:
    """Names as they are given, or one a line of a file.

    Raises:
        CrispsegError: there is no such file, or it cannot be read.
    """
    if isinstance(classes, list):
        return tuple(classes)
    if not Path(classes).exists():
        other = f"data.num_classes {classes}" if str(classes).isdecimal() else "a text file with one name a line"
        raise CrispsegError(f"data.classes is {classes}, which is no file; give '[background, road]', or {other}")
    return tuple(read_lines(classes))


def read_palette(path: Path) -> tuple[tuple[Color, ...], tuple[str, ...] | None]:
    """Lines "r g b name" → colours, and names where all lines have one.

    Raises:
        CrispsegError: a line is none, or the file cannot be read.
    """
    lines = [re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(\S.*))?", line) for line in read_lines(path)]
    for number, line in enumerate(lines):
        if line is None:
            raise CrispsegError(f"{path}: entry {number + 1} is not 'r g b name'; write for example '128 64 128 road'")
    parts = [line.groups() for line in lines if line is not None]
    colors = tuple((int(red), int(green), int(blue)) for red, green, blue, _ in parts)
    names = tuple(name for *_, name in parts)
    return colors, names if all(names) else None


def as_color(value: int | Color) -> Color:
    """A grey value v is the colour (v, v, v).

    Raises:
        CrispsegError: it is no colour.
    """
    color = (value, value, value) if isinstance(value, int) else (*value,)
    if len(color) != 3 or not all(0 <= level <= 255 for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color
