"""Text files of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

from crispseg.config.files import read_text
from crispseg.errors import CrispsegError, few
from crispseg.labels import IGNORE, LabelSet


def read_lines(path: str | Path) -> list[str]:
    """Return the stripped lines of a text file in UTF-8, without empty lines and lines that start with "#".

    UTF-16 with a byte-order mark works too. A file that cannot be read, is not text or has no lines raises a
    `CrispsegError`.
    """
    text = read_text(path)
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if not lines:
        raise CrispsegError(f"{path} is empty; write one entry per line")
    return lines


ID_AND_NAME = re.compile(r"(?P<id>\d+)[\s,;:=]+(?P<name>[^\s\d].*)")
NAME_AND_ID = re.compile(r"(?P<name>[^\s\d].*?)[\s,;:=]+(?P<id>\d+)")
TITLE_LINE = re.compile(
    r"(id|index|value|class|name|label)s?[\s,;:=]+(id|index|value|class|name|label)s?", re.IGNORECASE
)


def read_names(path: str | Path) -> tuple[str, ...]:
    """Return the class names of a text file with a name per line; errors name the file.

    If each line has an id and a name, such as "2 car" or "car,2", the names are in the order of these ids. A first line
    such as "id;name" is skipped then, and 255 is ignored. Ids with a gap, and errors of `read_lines` and `LabelSet`,
    raise a `CrispsegError`.
    """
    return checked_names(listed_names(path, read_lines(path)), path)


def checked_names(names: Sequence[str], place: object) -> tuple[str, ...]:
    """Return names of classes; errors of `LabelSet` name the place of the names."""
    try:
        return LabelSet.colored(names).names
    except CrispsegError as error:
        raise CrispsegError(f"{place}: {error}") from None


def listed_names(path: str | Path, lines: list[str]) -> tuple[str, ...]:
    names = numbered_names(lines[bool(TITLE_LINE.fullmatch(lines[0])) :])
    if not names:
        return tuple(lines)
    names.pop(IGNORE, None)
    if gaps := sorted({*range(max(names))} - {*names}):
        lacking = f"{path} has the ids {min(names)} to {max(names)}, but no name for {few(gaps)}; add a line for each"
        raise CrispsegError(f"{lacking}, or write names alone, from id 0; remove unlabelled ids, and give data.ignore")
    return tuple(names[index] for index in sorted(names))


def numbered_names(lines: list[str]) -> dict[int, str]:
    """Return id → name if each of several lines has both and neither repeats; otherwise nothing."""
    for pattern in (ID_AND_NAME, NAME_AND_ID):
        matches = [pattern.fullmatch(line) for line in lines]
        names = {int(match["id"]): match["name"] for match in matches if match}
        if len(names) == len({*names.values()}) == len(lines) > 1:
            return names
    return {}


def write_names(file: Path, names: Sequence[str]) -> None:
    """Write class names for `read_names`; names that it would read as others raise a `CrispsegError`."""
    write_list(file, names, lambda file: listed_names(file, read_lines(file)))


def write_list(file: Path, names: Sequence[str], read: Callable[[Path], Sequence[str]] = read_lines) -> None:
    """Write names, one a line; names that would be read as others raise a `CrispsegError`."""
    file.write_text("\n".join(names) + "\n", encoding="utf-8", errors="backslashreplace")
    written: Sequence[str] = ()
    with suppress(CrispsegError):
        written = read(file)
    for name, other in zip_longest(names, written):
        if name != other:
            raise CrispsegError(f"{name!r} would be another name in {file.name}; rename it in the data")


def names_or_file(names: list[str]) -> list[str]:
    """Return names, or the lines of a text file if they are its path alone; errors are those of `read_lines`."""
    return read_lines(names[0]) if len(names) == 1 and names[0].lower().endswith(".txt") else names
