"""Archives: what is said of one that waits to be unpacked, and unpacking that stays inside its folder."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from crispseg.errors import CrispsegError, one_line, system_line
from crispseg.io.files import LITTER

PARTIAL = ".part"
"""Ends the name of a file that is being downloaded."""


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be unpacked."""
    return path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def waiting_archive(missing: Path) -> str:
    """What to say about an archive that lies where a path is missing, or stands in its way; empty if there is none."""
    near = next((level for level in (missing, *missing.parents) if level.exists()), missing)
    found = [near]
    with suppress(OSError):  # no folder, or one that cannot be read, which has its own error elsewhere
        found = sorted(near.iterdir())
    for path in found:
        if path.suffix == PARTIAL and is_archive(path.with_suffix("")):
            return f"; {path} is half a download: run 'crispseg data download' again, which resumes it"
        if is_archive(path) and path.is_file():
            return f"; {path} is an archive: if it holds the data, unpack it first"
    return ""


def unpack(path: Path, folder: Path) -> int:
    """Unpack an archive into a folder, over files that are there; the files appear when all of it could be read.

    Nothing is written outside of the folder, links are not made, and checksums within a zip are verified.

    Returns:
        How many files.

    Raises:
        CrispsegError: it is damaged, cut off or wants to write outside of the folder; or something is in the way of a
            file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=LITTER) as name:
        inside = Path(name)
        try:
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(inside)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(inside, (one for one in tar if one.isfile() or one.isdir()), filter="data")
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
            raise _damaged(path, error) from None
        except OSError as error:
            if error.errno is None:  # gzip's own, of bad data
                raise _damaged(path, error) from None
            raise CrispsegError(f"cannot unpack {path} into {folder}: {system_line(error)}") from None
        files = [file for file in inside.rglob("*") if file.is_file()]
        for file in files:
            target = folder / file.relative_to(inside)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
            except OSError as error:
                raise CrispsegError(
                    f"cannot put {target} there ({error.strerror}); remove what is in the way or choose another folder"
                ) from None
    return len(files)


def _damaged(path: Path, error: Exception) -> CrispsegError:
    return CrispsegError(f"{path} cannot be unpacked ({one_line(error)}); remove it and download it again")
