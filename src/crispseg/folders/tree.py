"""Names of the files in a folder, from one walk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from crispseg.io.files import files_below
from crispseg.io.images import SUFFIXES


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
        return cls(root, tuple(sorted(PurePosixPath(path.relative_to(root)) for path in files_below(root))))

    @cached_property
    def images(self) -> tuple[PurePosixPath, ...]:
        """Paths of the files with a suffix of images."""
        return tuple(path for path in self.files if path.suffix.lower() in SUFFIXES)

    def named(self, folder: PurePosixPath | str = ".") -> dict[str, Path]:
        """Return the full paths of the files of one folder, without its sub-folders, by their names."""
        return {path.name: self.root / path for path in self.files if path.parent == PurePosixPath(folder)}

    def below(self, folder: PurePosixPath | str) -> Tree:
        """Return the tree of a sub-folder, without another walk."""
        inside = (path.relative_to(folder) for path in self.files if path.is_relative_to(folder))
        return Tree(self.root / folder, tuple(inside))
