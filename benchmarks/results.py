"""The CSV files of the tables, and the hash of the recipe that their rows followed."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import tables

from crispseg.cli.parsing import read_yaml
from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path

Row = dict[str, str]

F_PREFIX = "boundary_f_"


def f_column(distance: int) -> str:
    """The column of the boundary F-score at this many pixels."""
    return f"{F_PREFIX}{distance}"


def iou_column(name: str) -> str:
    """The column of a class's IoU."""
    return f"iou_{name}"


def score_rows(table: tables.Comparison) -> list[Row]:
    """The rows of the table's runs; none if there is no file yet.

    Raises:
        CrispsegError: there are rows of other networks, or scores at other distances, than the table has.
    """
    rows = read_rows(table.scores)
    if strange := sorted({row["model"] for row in rows} - set(table.entries)):
        raise CrispsegError(f"{table.scores} has rows of {', '.join(strange)}, which the table has not; remove them")
    wanted = [f_column(distance) for distance in table.distances]
    found = [column for column in rows[0] if column.startswith(F_PREFIX)] if rows else wanted
    if found != wanted:
        raise CrispsegError(
            f"{table.scores} has the columns {', '.join(found)}, the table {', '.join(wanted)}; remove the file and "
            "score anew"
        )
    return rows


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file, whole at any time."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def recipe_hash() -> str:
    """A digest of the recipe's settings, so that tables do not mix recipes; comments do not count."""
    settings = {key: value for key, value in read_yaml(tables.RECIPE).items() if key != "preset"}  # once the defaults
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
