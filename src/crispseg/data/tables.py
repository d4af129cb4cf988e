"""Tables next to data that list the images with splits or patients."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

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
        if found := _found(file, stems):
            remedy = f"write the names of each split to train.txt, val.txt and test.txt in {root} to keep it"
            notes.append(f"{file} lists the images with {few(found)}, which is not used; {remedy}")
    return notes


def _found(file: Path, stems: Collection[str]) -> list[str]:
    """Return the columns of splits and of related images, or the splits of a JSON file; empty if it has none."""
    columns = _columns(file)
    names = {key: [re.sub(r"\.\w{2,5}$", "", value.split("/")[-1]) for value in columns[key]] for key in columns}
    listed = {key: len({*names[key]} & {*stems}) for key in columns if not {*names[key]}.isdisjoint(stems)}
    if file.suffix.lower() == ".json":
        return [key for key in listed if key.lower() in SPLIT_OF]
    most = max(listed.values(), default=0)
    if file.stem.lower() in SPLIT_OF and listed and 2 * most >= len(columns[min(listed)]):
        return [f"one split in {key}" for key in listed][:1]
    return [key for key, values in columns.items() if 2 * most >= len(stems) and _divides(key, values)]


def _columns(file: Path) -> dict[str, list[str]]:
    """Return the columns of a table or the lists of a JSON file; empty for other files."""
    if not file.is_file() or file.stat().st_size > LARGEST:
        return {}
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix.lower() == ".json":
            columns = {key: values for key, values in json.loads(text).items() if isinstance(values, list)}
        else:
            lines = text.splitlines()
            rows = [*csv.DictReader(lines, dialect=csv.Sniffer().sniff(lines[0], ",;\t"))]
            columns = {key: [row[key] for row in rows] for key in rows[0] if key}
    except (OSError, ValueError, AttributeError, IndexError, csv.Error):  # another kind of file
        return {}
    return {key: [str(value).strip().replace("\\", "/") for value in values] for key, values in columns.items()}


def _divides(name: str, column: Sequence[str]) -> bool:
    several = 1 < len({*column}) < len(column)
    return several and (all(value.lower() in SPLIT_OF for value in column) or RELATED.search(name) is not None)
