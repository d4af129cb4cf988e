"""Archives: whether one is whole, what is said of one that waits to be unpacked, and unpacking that stays inside."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from crispseg.errors import CrispsegError, one_line, system_line
from crispseg.io.files import LITTER

PARTIAL = ".part"
"""Ends the name of a file that is being downloaded."""

_TAR_END = 1024
"""Bytes of zeros that end a tar."""


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be unpacked."""
    return path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def looks_whole(path: Path) -> bool:
    """Whether an archive ends as one does; reading all of it may find damage yet. Of a gzip only the start is seen."""
    suffix = Path(path.name.removesuffix(PARTIAL)).suffix.lower()
    if suffix == ".zip":
        return zipfile.is_zipfile(path)  # finds the directory, which is at the end
    with path.open("rb") as file:
        if suffix != ".tar":
            return file.read(2) == b"\x1f\x8b"
        size = path.stat().st_size
        file.seek(-min(size, _TAR_END), os.SEEK_END)
        return size >= _TAR_END and size % 512 == 0 and not any(file.read())


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
            if not looks_whole(path):
                return f"; {path} is only half there, or damaged: download it again"
            return f"; {path} is an archive: if it holds the data, unpack it first"
    return ""


def unpacked_size(path: Path) -> int:
    """Bytes that the files of an archive take, as a zip says; of others the archive's own size, at least.

    Raises:
        CrispsegError: it is no zip, or cut off.
    """
    if path.suffix.lower() != ".zip":
        return path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, error) from None


def unpack(path: Path, folder: Path) -> int:
    """Unpack an archive into a folder, over files that are there; the files appear when all of it could be read.

    Links are not made, and checksums within a zip are verified.

    Returns:
        How many files.

    Raises:
        CrispsegError: it is damaged or cut off, an entry would be written outside of the folder, or
            something is in the way of a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=LITTER) as name:
        inside = Path(name)
        try:
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(path) as archive:
                    for entry in archive.namelist():
                        if entry.startswith(("/", "\\")) or ".." in entry.replace("\\", "/").split("/"):
                            raise _outside(path, entry)
                    archive.extractall(inside)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(inside, _fitting(tar, path, folder), filter="data")
        except tarfile.FilterError as error:
            raise _outside(path, error.tarinfo.name) from None
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


def _fitting(tar: tarfile.TarFile, path: Path, folder: Path) -> Iterator[tarfile.TarInfo]:
    """The files and folders of a tar, of which a small one may hold more than there is room for."""
    room = shutil.disk_usage(folder).free
    for one in tar:
        room -= one.size
        if room < 0:
            raise CrispsegError(f"{path} holds more than {folder} has room for; make room or choose another folder")
        if one.isfile() or one.isdir():
            yield one


def _outside(path: Path, entry: str) -> CrispsegError:
    return CrispsegError(
        f"{path} holds the entry '{entry}', which would be written outside of the folder; nothing was unpacked: do not "
        "use this archive"
    )


def _damaged(path: Path, error: Exception) -> CrispsegError:
    return CrispsegError(f"{path} is damaged or only half there ({one_line(error)}); remove it and download it again")
