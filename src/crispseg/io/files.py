"""Writing files so that a crash never leaves half of one, and folders that one process at a time writes to."""

from __future__ import annotations

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

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "img_dir", "jpegimages")
"""Usual names of folders of images, in lower case."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, with the same suffix, and rename it to `path` when the block succeeds.

    On an error the temporary file is removed and an earlier `path` is untouched; an `OSError` names `path`.

    Raises:
        CrispsegError: the folder cannot be written, or `path` is a folder.
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
def atomic_files(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder for files that belong together, named after the stem of `path`, such as `path.bin`.

    When the block succeeds they are moved beside `path`, which comes last.

    Raises:
        CrispsegError: the folder of `path` cannot be written, or `path` is a folder.
    """
    path = writable_file(path)
    with tempfile.TemporaryDirectory(prefix=LITTER, dir=path.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir(), key=lambda file: file.suffix == path.suffix):
            file.replace(path.with_name(file.name))


@contextmanager
def owned(folder: Path, *inside: Path) -> Iterator[None]:
    """Lock a folder against other processes, and first remove what a killed owner left in it.

    The lock is one of the operating system, which ends with the process, however that ends.

    Args:
        folder: made where it is missing, and removed again if the owner leaves nothing in it.
        inside: further folders to which the owner writes.

    Raises:
        CrispsegError: another process owns the folder, or it cannot be written or locked.
    """
    is_new = not folder.exists()
    try:
        with _locked(writable_folder(folder) / LOCK, folder):
            for place in {folder, *inside}:
                for left in place.glob(f"{LITTER}*"):
                    _remove(left)
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose content becomes that of `path` when the block succeeds.

    `path` is new or an empty folder, which stays, since it may be a link or a mounted disk. On an error nothing is
    left; what a killed process left is removed by the next one that makes the same folder.

    Raises:
        CrispsegError: `path` is a file or holds something, cannot be written, or another process is making it.
    """
    path = check_new_folder(path)
    beside = path if path.exists() else path.absolute().parent
    temporary = writable_folder(beside) / f"{LITTER}{path.absolute().name}"[:200]
    with _locked(beside / f"{temporary.name}.lock", path):
        check_new_folder(path)  # which another process may have made meanwhile
        _remove(temporary)
        temporary.mkdir()
        try:
            yield temporary
            if beside == path:
                for entry in temporary.iterdir():
                    entry.replace(path / entry.name)
            else:
                temporary.replace(path)
        finally:
            _remove(temporary)


def check_new_folder(path: str | Path) -> Path:
    """Return `path`, which is new or an empty folder; temporary files of a killed process do not count.

    Raises:
        CrispsegError: it is not.
    """
    path = Path(path)
    if path.is_dir() and any(not entry.name.startswith((LITTER, LOCK)) for entry in path.iterdir()):
        raise CrispsegError(f"{path} is not empty; give a new folder")
    if path.exists() and not path.is_dir():
        raise CrispsegError(f"{path} is a file; give a new folder")
    if path.is_symlink() and not path.exists():
        raise CrispsegError(f"{path} is a link that leads nowhere; give a new folder")
    return path


def writable_folder(path: str | Path) -> Path:
    """Make the folder where it is missing and make sure that it can be written, before long work starts.

    Raises:
        CrispsegError: it is a file, cannot be made, or cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise CrispsegError(f"{path} cannot be a folder: a file is there or above it; choose another folder") from None
    except OSError as error:
        raise CrispsegError(f"cannot write to the folder {path} ({error.strerror}); choose another folder") from None
    return path


def writable_file(path: str | Path) -> Path:
    """Make sure that a file can be written there, before long work starts; its folder is made where it is missing.

    Raises:
        CrispsegError: the folder cannot be written, or `path` is a folder.
    """
    path = Path(path)
    writable_folder(path.parent)
    if path.is_dir():
        raise CrispsegError(f"cannot write the file {path}: a folder of that name stands there; choose another name")
    return path


@contextmanager
def _locked(file: Path, what: Path) -> Iterator[None]:
    lock = FileLock(file, timeout=1)  # seconds: a process that was killed may take a moment to be gone
    try:
        lock.acquire()
    except Timeout:
        raise CrispsegError(
            f"{what} is in use by another process; wait for its end, or choose another folder"
        ) from None
    except OSError as error:
        raise CrispsegError(f"{what} cannot be locked ({error.strerror}); choose another folder") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
