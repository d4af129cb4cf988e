"""Writing files so that a crash never leaves half of one, and folders that one process at a time writes to."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from crispseg.errors import CrispsegError

LITTER = ".crispseg-"
"""Begins the names of temporary files and folders."""
LOCK = ".crispseg.lock"


def digest(*files: Path) -> str:
    """Return the SHA-256 of files together; one that cannot be read is empty."""
    found = hashlib.sha256()
    for path in files:
        with suppress(OSError), path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, with the same suffix, and rename it to `path` when the block succeeds.

    On an error the temporary file is removed and an earlier `path` is untouched; an `OSError` names `path`. A folder
    that cannot be written, or that is called `path`, is a CrispsegError.
    """
    path = writable_file(path)
    temporary = path.with_name(f"{LITTER}{secrets.token_hex(8)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)  # with the permissions that umask and folder give any new file
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers make it private
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, see `check_new_folder`, when the block succeeds."""
    path = check_new_folder(path).resolve()
    beside = writable_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=LITTER, dir=beside, ignore_cleanup_errors=True) as name:
        made = Path(name) / "made"
        made.mkdir()
        yield made
        made.replace(path)


@contextmanager
def owned(folder: Path, *inside: Path) -> Iterator[None]:
    """Lock a folder against other processes, and first remove what a killed owner left in it.

    The lock is one of the operating system, which ends with the process, however that ends. The owner may also write to
    further folders `inside`. If another process owns the folder, a CrispsegError says so.
    """
    file = writable_folder(folder) / LOCK
    lock = FileLock(file, timeout=1)  # seconds: a process that was killed may take a moment to be gone
    try:
        lock.acquire()
    except Timeout:
        raise CrispsegError(f"{folder} is in use by another process; wait for its end, or choose another") from None
    try:
        for left in (left for place in {folder, *inside} for left in place.glob(f"{LITTER}*")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def check_new_folder(path: str | Path) -> Path:
    """Return `path` if it is new or an empty folder, else raise a CrispsegError."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CrispsegError(f"{path} is {'not empty' if path.is_dir() else 'a file'}; give a new folder")
    return path


def writable_folder(path: str | Path) -> Path:
    """Make the folder where it is missing and make sure that it can be written, or raise a CrispsegError."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise CrispsegError(f"cannot write to the folder {path} ({error.strerror}); choose another folder") from None
    return path


def writable_file(path: str | Path) -> Path:
    """Make sure that a file can be written there, in a folder that is made where it is missing, or raise likewise."""
    path = Path(path)
    writable_folder(path.parent)
    if path.is_dir():
        raise CrispsegError(f"cannot write the file {path}: a folder of that name stands there; choose another name")
    return path
