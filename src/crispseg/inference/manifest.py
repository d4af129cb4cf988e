"""Shares of the work on many images, and manifests of what is done, with which it goes on after a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.errors import CrispsegError

MANIFEST = "manifest-{}-of-{}.jsonl"


@dataclass(frozen=True)
class Share:
    """One of several shares of the work, 1 to `of`.

    What is in it follows from the names of images alone, so that processes that start at different times, or see a
    folder grow, still never share an image. Shares are therefore only about as large as each other.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that `2/3` means.

        Raises:
            CrispsegError: it means none.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise CrispsegError(f"--shard is {text}; give which share of how many: 1/3, 2/3 or 3/3")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def __contains__(self, name: str) -> bool:
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest) % self.of == self.number - 1


class Manifest:
    """The file of a share, to which a line of JSON is appended for each image, once its results stand.

    Rows have `name`, `image`, `files` (of each result its size in bytes and its SHA-256), `seconds`, and what made
    them; those of images that could not be read have `error` in place of `files` and `seconds`. Half a line, which a
    killed process left, does not count.

    Args:
        folder: of the results, and of the manifests of all shares.
        share: of this process, which alone writes to its file.
        made_by: what results depend on besides the image; values as JSON has them.
    """

    def __init__(self, folder: Path, share: Share, made_by: Mapping[str, Any]) -> None:
        self.folder = folder
        self.share = share
        self.made_by = json.loads(json.dumps(made_by))
        self._file = (folder / MANIFEST.format(share.number, share.of)).open("ab+", buffering=0)
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read() != b"\n":
                self._file.write(b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def done(self, names: Container[str]) -> set[str]:
        """Those names whose results stand in the folder, by the manifests of all shares, of whatever number.

        A result that was removed or has another size, as after a failure of the machine, does not count.

        Raises:
            CrispsegError: results are of another model or of other settings.
        """
        found = set()
        for path in sorted(self.folder.glob(MANIFEST.format("*", "*"))):
            for row in rows(path):
                if "files" not in row or row["name"] not in names:
                    continue
                for key, value in self.made_by.items():
                    if row.get(key) != value:
                        raise CrispsegError(
                            f"{path} has results of {key} {row.get(key)}, not {value}; go on as it was begun, or "
                            "choose another folder"
                        )
                if all(_size(self.folder / name) == size for name, (size, _) in row["files"].items()):
                    found.add(row["name"])
        return found

    def add(self, name: str, image: Path, files: Sequence[Path], seconds: float) -> None:
        """Append an image that is done."""
        sums = {path.relative_to(self.folder).as_posix(): (path.stat().st_size, _digest(path)) for path in files}
        self._append({"name": name, "image": str(image), "files": sums, "seconds": round(seconds, 4)})

    def fail(self, name: str, image: Path, error: CrispsegError) -> None:
        """Append an image that could not be read; it is tried again whenever somebody goes on."""
        self._append({"name": name, "image": str(image), "error": str(error)})

    def _append(self, row: dict[str, Any]) -> None:
        line = f"{json.dumps(row | self.made_by)}\n".encode()
        if self._file.write(line) < len(line):  # in one call, since two threads may append
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Those of a manifest's file, in the order in which they were written."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):  # half a line
                yield json.loads(line)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None
