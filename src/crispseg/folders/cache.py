"""Facts of files that were read before, in the user's cache folder.

A file counts as unchanged if its path, size and time of modification in nanoseconds are unchanged. If a program writes
other pixels with the same size in bytes and restores the old time, `forget` is needed.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_cache_path

from crispseg.io.files import user_path

FORMAT = 2  # increase it if the fields of facts or their computation change
LARGEST_CACHE = 2**30  # size of the file, in bytes, from which it is written again
CACHE_FAULTS = OSError, sqlite3.Error, pickle.PickleError, AttributeError, TypeError
"""Errors of a full or read-only disk and of a damaged or outdated cache; files are then read without it."""


class FileState(NamedTuple):
    """Key of a file in the cache."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        """Return the state of a file, or None if there is no such file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        absolute = os.path.abspath(path)  # noqa: PTH100, which would follow links
        return cls(absolute.encode(errors="backslashreplace").decode(), stat.st_size, stat.st_mtime_ns)


def cache_folder() -> Path:
    """Return the operating system's folder for caches, or that of the environment variable CRISPSEG_CACHE."""
    return user_path(os.environ.get("CRISPSEG_CACHE") or user_cache_path("crispseg"), "CRISPSEG_CACHE")


def cache_file() -> Path:
    return cache_folder() / f"facts-{FORMAT}.sqlite"


def forget() -> None:
    """Remove all facts, so that every file is read again."""
    with suppress(OSError):
        cache_file().unlink(missing_ok=True)


def recall(kind: str, states: Iterable[FileState]) -> dict[FileState, Any]:
    """Return the facts of a kind, such as image or mask, of the files in these states."""
    facts: dict[FileState, Any] = {}
    query = "SELECT facts FROM files WHERE kind = ? AND path = ? AND size = ? AND mtime_ns = ?"
    with suppress(*CACHE_FAULTS), _database() as database:
        for state in states:
            if row := database.execute(query, (kind, *state)).fetchone():
                facts[state] = pickle.loads(row[0])
    return facts


def remember(kind: str, facts: Iterable[tuple[FileState, Any]]) -> None:
    """Store facts of a kind. Without a writable cache folder, nothing is stored."""
    rows = ((kind, *state, pickle.dumps(content, protocol=5)) for state, content in facts)
    with suppress(*CACHE_FAULTS), _database() as database:
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
        database.commit()


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file() and file.stat().st_size > LARGEST_CACHE:
        file.unlink()
    with closing(sqlite3.connect(file, timeout=10)) as database:
        columns = "kind TEXT, path TEXT, size INTEGER, mtime_ns INTEGER, facts BLOB, PRIMARY KEY (kind, path)"
        database.execute(f"CREATE TABLE IF NOT EXISTS files ({columns})")
        yield database
