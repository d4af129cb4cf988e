"""Names of the files in a folder, from one walk."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from crispseg.errors import CrispsegError
from crispseg.io.images import SUFFIXES, SYSTEM_FOLDERS

RUN = frozenset({"config.yaml", "checkpoints"})
"""Names in the folder of a training run, whose pictures are no data."""


@dataclass(frozen=True)
class Tree:
    """Files below a folder.

    Args:
        root: the folder.
        files: path of each file in the folder, sorted.
    """

    root: Path
    files: tuple[PurePosixPath, ...] = ()

    @classmethod
    def of(cls, root: str | Path) -> Tree:
        """Walk through a folder once. Links are followed; hidden files and folders, and runs in it, are left out.

        A missing folder raises a `CrispsegError`.
        """
        root = Path(root)
        if not root.is_dir():
            raise CrispsegError(f"{root} is missing or not a folder; give a folder of data")
        return cls(root, tuple(sorted(_walk(root, PurePosixPath(), frozenset()))))

    @cached_property
    def images(self) -> tuple[PurePosixPath, ...]:
        """Paths of the files with a suffix of images."""
        return tuple(path for path in self.files if path.suffix.lower() in SUFFIXES)

    @cached_property
    def folders(self) -> Mapping[PurePosixPath, Counter[str]]:
        """Folder → number of its own files by suffix, in lower case."""
        counts: dict[PurePosixPath, Counter[str]] = defaultdict(Counter)
        for path in self.files:
            counts[path.parent][path.suffix.lower()] += 1
        return dict(counts)

    def named(self, folder: PurePosixPath | str = ".") -> dict[str, Path]:
        """Return the full paths of the files of one folder, without its sub-folders, by their names."""
        return {path.name: self.root / path for path in self.files if path.parent == PurePosixPath(folder)}

    def below(self, folder: PurePosixPath | str) -> Tree:
        """Return the tree of a sub-folder, without another walk."""
        inside = (path.relative_to(folder) for path in self.files if path.is_relative_to(folder))
        return Tree(self.root / folder, tuple(inside))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        remedy = "check its permissions, or move it"
        raise CrispsegError(f"{folder} cannot be read ({error.strerror}); {remedy}") from None


def _walk(root: Path, folder: PurePosixPath, above: frozenset[str]) -> Iterator[PurePosixPath]:
    """Yield files; `above` are the real paths of the folders above, since a link may lead back to them."""
    real = os.path.realpath(root / folder)
    if real in above:
        return
    entries = _entries(root / folder)
    if folder.parts and {entry.name for entry in entries} >= RUN:
        return
    for entry in entries:
        if entry.name[0] == "." or entry.name in SYSTEM_FOLDERS:
            continue
        if entry.is_dir():
            yield from _walk(root, folder / entry.name, above | {real})
        elif entry.is_file() or not Path(entry.path).exists():  # readers report a broken link
            yield folder / entry.name
