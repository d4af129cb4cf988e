"""Archives: downloading, resumed where it broke off and verified; unpacking that stays inside its folder."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from crispseg.data.catalogue import Archive, Entry
from crispseg.errors import CrispsegError, one_line, system_line
from crispseg.io.files import LITTER, writable_folder

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


Progress: TypeAlias = Callable[[str, int, "int | None"], None]
"""Called with what is being done, the bytes done and those there are, None where that is not known."""

TRIES = 5
"""Connections in a row that may bring nothing new."""
PAUSE = 2.0
"""Seconds to wait before the second try; twice as long before each further one."""
TIMEOUT = 60.0
"""Seconds that a server may keep silent."""
_CHUNK = 2**20


class _Interrupted(Exception):
    """The connection broke, or the server has trouble that may pass."""


def download(entry: Entry, out: Path, progress: Progress, keep_archives: bool = False) -> int:
    """Download all archives of a data set into a folder and unpack them there.

    Args:
        entry: the data set; it has archives.
        out: folder, made where it is missing. What an earlier call left there is used.
        progress: is told how far it is.
        keep_archives: whether to keep them when all are unpacked.

    Returns:
        The number of files that were unpacked.

    Raises:
        CrispsegError: an address that does not answer or answers otherwise than expected, a wrong checksum or size, a
            damaged archive, or too little space.
    """
    writable_folder(out)
    files = [fetch(archive, out, progress) for archive in entry.archives]
    count = 0
    for archive, file in zip(entry.archives, files, strict=True):
        progress(f"Unpacking {file.name}", 0, None)
        count += unpack(file, out / archive.folder)
    for file in [] if keep_archives else files:
        file.unlink()
    return count


def fetch(archive: Archive, folder: Path, progress: Progress) -> Path:
    """Download one archive, or take the verified one that is there.

    Until it is complete and verified its name ends in `.part`, from which a later call goes on. Raises as `download`.
    """
    path, part = folder / archive.file, folder / (archive.file + PARTIAL)
    if path.exists():
        if fault := _fault(archive, path, progress):
            raise CrispsegError(f"{path} {fault}; remove it, so that it is downloaded again")
        return path
    failures, whole = 0, False
    while not whole:
        before = _size(part)
        try:
            _transfer(archive, part, progress)
            whole = True
        except _Interrupted as error:
            failures = failures + 1 if _size(part) <= before else 1
            if failures >= TRIES:
                raise CrispsegError(
                    f"{archive.url}: the download broke off after {_size(part):,} bytes ({error}); run the same "
                    "command again, it goes on from there"
                ) from None
            time.sleep(PAUSE * 2 ** (failures - 1))
    if fault := _fault(archive, part, progress):
        part.unlink()
        raise CrispsegError(
            f"{archive.url}: what came {fault}; it was removed, run the same command again, and if it fails again the "
            "file on the server is another one"
        )
    part.replace(path)
    return path


def _transfer(archive: Archive, part: Path, progress: Progress) -> None:
    """Download what is missing in the partial file. Where trying again may help, `_Interrupted` is raised."""
    start = _size(part)
    request = urllib.request.Request(archive.url, headers={"User-Agent": "crispseg", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            if response.status != 206:
                start = 0  # the server knows no parts
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _Interrupted("the server sends another part than was asked for")
            total = None if length is None else start + int(length)
            if (needed := int(length or 0)) > (free := shutil.disk_usage(part.parent).free):
                raise CrispsegError(
                    f"{part.parent} has {free / 1e9:.1f} GB free, but {archive.file} needs {needed / 1e9:.1f}; "
                    "make room or choose another folder"
                )
            if archive.size is not None and total not in (None, archive.size):
                raise CrispsegError(
                    f"{archive.url} has {total:,} bytes now, not {archive.size:,}; it is another file than expected"
                )
            try:
                with part.open("r+b" if start else "wb") as file:
                    file.seek(start)
                    while chunk := _received(response):
                        file.write(chunk)
                        progress(f"Downloading {archive.file}", file.tell(), total)
            except OSError as error:
                reason = error.strerror
                raise CrispsegError(f"cannot write {part} ({reason}); make room or choose another folder") from None
            if total is not None and _size(part) < total:
                raise _Interrupted(f"{total:,} were announced")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send, or the part is longer than the file
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.unlink(missing_ok=True)
            raise _Interrupted("the part of an earlier download does not fit the file") from None
        if error.code >= 500 or error.code in (408, 429):
            raise _Interrupted(f"HTTP {error.code} {error.reason}") from None
        raise CrispsegError(
            f"{archive.url}: the server answers {error.code} {error.reason}; the address may have moved, get the file "
            f"by hand and put it at {part.with_suffix('')}"
        ) from None
    except (OSError, http.client.HTTPException) as error:  # of the connection
        raise _Interrupted(str(getattr(error, "reason", "") or error) or type(error).__name__) from None


def _received(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _fault(archive: Archive, path: Path, progress: Progress) -> str:
    """What is wrong with a file that should be the whole archive; empty where nothing is."""
    size = _size(path)
    if archive.size is not None and size != archive.size:
        return f"has {size:,} bytes, not {archive.size:,}"
    if archive.md5 is None:
        return "" if zipfile.is_zipfile(path) else "is no complete zip"  # its directory is at the end
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress(f"Verifying {archive.file}", file.tell(), size)
    found = digest.hexdigest()
    return "" if found == archive.md5 else f"has the MD5 {found}, not {archive.md5}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
