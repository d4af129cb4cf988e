"""Tables next to data that list the images with splits or patients."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crispseg.data.folder_search import SPLIT_OF
from crispseg.data.pairing import few

LARGEST, MOST = 2**22, 20
"""Largest size of a table in bytes, and largest number of tables to read."""
RELATED = re.compile(
    r"patient|subject|case|scene|group|series|study|slide|site|specimen|animal|video|participant", re.I
)
"""Names of columns of related images."""


def tables(root: Path, names: Collection[str]) -> list[str]:
    """Return notes about tables in a folder that list its images, by these names, with splits or patients."""
    stems = {PurePosixPath(name).name for name in names}
    files = [file for file in sorted(root.glob("*")) if file.suffix.lower() in (".csv", ".tsv", ".json")]
    notes = []
    for file in files[:MOST]:
        if file.is_file() and file.stat().st_size <= LARGEST and (found := _found(file, stems)):
            remedy = f"write the names of each split to train.txt, val.txt and test.txt in {root} to keep it"
            notes.append(f"{file} lists the images with {few(found)}, which is not used; {remedy}")
    return notes


def _found(file: Path, stems: Collection[str]) -> list[str]:
    """Return the columns of splits and of related images, or the splits of a JSON file; empty if it has none."""
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix.lower() == ".json":
            return [*_json_splits(json.loads(text), stems)]
        lines = text.splitlines()
        rows = [*csv.DictReader(lines, dialect=csv.Sniffer().sniff(lines[0], ",;\t"))] if lines else []
    except (OSError, ValueError, csv.Error):  # another kind of file
        return []
    values = {name: [str(row[name]).strip() for row in rows] for name in rows[0] if name} if rows else {}
    listed = [len({*map(_stem, column)} & {*stems}) for column in values.values()]
    if file.stem.lower() in SPLIT_OF and 2 * max(listed, default=0) >= len(rows):
        return [f"one split in {name}" for name, count in zip(values, listed, strict=True) if count][:1]
    if 2 * max(listed, default=0) < len(stems):
        return []
    return [name for name, column in values.items() if _divides(name, column)]


def _divides(name: str, column: Sequence[str]) -> bool:
    several = 1 < len({*column}) < len(column)
    return several and (all(value.lower() in SPLIT_OF for value in column) or RELATED.search(name) is not None)


def _json_splits(content: Any, stems: Collection[str]) -> Iterator[str]:
    for name, images in content.items() if isinstance(content, Mapping) else ():
        listed = images if isinstance(images, list) else []
        if name.lower() in SPLIT_OF and {*map(_stem, map(str, listed))} & {*stems}:
            yield name


def _stem(name: str) -> str:
    """Return the name of an image without folders and suffix."""
    return re.sub(r"\.\w{2,5}$", "", PurePosixPath(name.replace("\\", "/")).name)
