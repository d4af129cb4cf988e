"""Writing files so that a crash never leaves half of one, and folders that one process at a time writes to."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from crispseg.errors import CrispsegError, CrispsegWarning

LITTER = ".crispseg-"
"""Begins the names of temporary files and folders."""
LOCK = ".crispseg.lock"
SHARE_LOCK = ".crispseg.share-{}-of-{}.lock"
GATE = 30
"""Seconds to wait for a lock that others hold for a moment."""
_DIGITS = 16
"""Hexadecimal digits in the names of what becomes a folder."""
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_DAY = 24 * 60 * 60


class InUse(CrispsegError):
    """Another process has the folder."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to `path` when the block succeeds.

    The suffix is kept, so writers that choose a format by it work. On an error the temporary file is removed and
    whatever stood at `path` before is untouched; an `OSError` names `path` where it names no other file.

    Raises:
        CrispsegError: the folder cannot be written, or `path` is a folder.
    """
    path = writable_file(path)
    temporary = path.with_name(f"{temporary_prefix()}{secrets.token_hex(4)}{path.suffix}")
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


def temporary_prefix() -> str:
    """Begins the names of this process's temporary files and folders, which are removed once the process is gone."""
    return f"{LITTER}{os.getpid()}-{_MACHINE}-"


@contextmanager
def staging(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, for files that belong together; `put` puts them in place.

    Raises:
        CrispsegError: the folder of `path` cannot be written, or `path` is a folder.
    """
    folder = writable_file(path).with_name(f"{temporary_prefix()}{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(staged: Path, path: Path) -> None:
    """Move all files of a folder beside `path`, those named after its stem, as `path.bin`, before `path` itself."""
    for file in sorted(staged.iterdir(), key=lambda file: file.suffix == path.suffix):
        file.replace(path.with_name(file.name))


@contextmanager
def owned(folder: Path, *inside: Path) -> Iterator[None]:
    """Let no other process own the folder while the block runs, and first remove what a killed owner left in it.

    The lock is one of the operating system, which ends with the process, however that ends. Where the file system has
    none, a file stands for it; one that a killed process of this machine left does not count.

    Args:
        folder: made where it is missing, and removed again if the owner leaves nothing in it.
        inside: further folders to which the owner writes, where temporary files may be left too.

    Raises:
        CrispsegError: another process owns the folder, or it cannot be written.
    """
    with ExitStack() as stack:
        if not folder.exists():
            stack.callback(_removed_if_empty, folder)
        if _taken(stack, writable_folder(folder) / LOCK, str(folder)):
            if held := _shares(folder):
                raise InUse(_in_use(str(folder), held[0]))
            _clear({folder, *inside})
        yield


@contextmanager
def owned_share(folder: Path, number: int, of: int, *inside: Path) -> Iterator[None]:
    """As `owned`, of one of several shares of the work in a folder: one process for each, and none with other shares.

    Each share has a lock of its own. The folder's is held for a moment at the beginning and at the end, so that whoever
    finds nobody else there, and nobody but them, removes what killed processes left.

    Raises:
        CrispsegError: as `owned`; another process has this share, or one of another number of shares.
    """
    writable_folder(folder)
    file = folder / SHARE_LOCK.format(number, of)
    with ExitStack() as stack:
        with ExitStack() as gate:
            if _taken(gate, folder / LOCK, str(folder), GATE):
                others = _shares(folder)
                for other in others:
                    if not other.match(SHARE_LOCK.format("*", of)):
                        raise CrispsegError(
                            f"{_owner(other)} has one of another number of shares of {folder}; give all processes the "
                            "same number, or wait for its end"
                        )
                if not others:
                    _clear({folder, *inside})
                _taken(stack, file, f"share {number}/{of} of {folder}", 0)
        try:
            yield
        finally:
            with ExitStack() as gate:
                if _taken(gate, folder / LOCK, str(folder), GATE):
                    stack.close()
                    if not _shares(folder):
                        _clear({folder, *inside})


def _taken(stack: ExitStack, file: Path, what: str, seconds: float = 1) -> bool:
    """Lock a file until the stack is closed, which removes it; False where the file system has no locks.

    Whoever has just been killed may take a moment to be gone, hence the seconds.
    """
    lock: BaseFileLock = FileLock(file, timeout=seconds)
    try:
        stack.enter_context(lock)
    except Timeout:
        raise InUse(_in_use(what, file)) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise CrispsegError(
                f"{what} is, or was, in use by {_owner(file)} of another user, as {file} says; choose another folder"
            ) from None
        note = f"{file.parent} cannot be locked ({error.strerror}); let nothing else write to it meanwhile"
        warnings.warn(note, CrispsegWarning, stacklevel=4)
        return False
    if not isinstance(lock, SoftFileLock):  # which says by itself who owns it, and is removed
        with suppress(OSError):
            file.write_text(f"{os.getpid()}\n{platform.node()}\n")
        stack.callback(_removed, file)
    return True


def _shares(folder: Path) -> list[Path]:
    """The locks of shares that a process has. Those of killed ones are removed; call it with the folder's lock."""
    return [file for file in folder.glob(SHARE_LOCK.format("*", "*")) if _in_hands(file)]


def _is_used(left: Path) -> bool:
    """Whether a temporary file may be of a process that lives: of another machine, one that was written today."""
    made_by = re.match(rf"{re.escape(LITTER)}(\d+)-([0-9a-f]{{8}})-", left.name)
    if not made_by:
        return False
    try:
        if made_by[2] != _MACHINE or os.name != "posix":
            return time.time() - left.stat().st_mtime < _DAY
        os.kill(int(made_by[1]), 0)  # which asks and does nothing
    except (ProcessLookupError, FileNotFoundError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _clear(places: Iterable[Path]) -> None:
    for place in places:
        for left in place.glob(f"{LITTER}*"):
            lock = left.with_name(left.name[: len(LITTER) + _DIGITS] + ".lock")  # of what becomes a folder
            if not (_is_used(left) or (lock.exists() and _in_hands(lock))):
                _removed(left)


def _in_hands(lock: Path) -> bool:
    """Whether a process that lives holds the lock; one that a killed process left is removed."""
    try:
        with FileLock(lock, timeout=0):
            _removed(lock)
            return False
    except Timeout:
        return True
    except OSError as error:  # a file system without locks, or a file of another user
        return error.errno in (errno.EACCES, errno.EPERM)


def _in_use(what: str, lock: Path) -> str:
    return f"{what} is in use by {_owner(lock)}; wait for its end, or choose another folder"


def _owner(lock: Path) -> str:
    with suppress(OSError, ValueError):
        process, machine, *_ = lock.read_text().split()
        return f"process {process} on {machine}"
    return "another process"


def _removed_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _removed(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _left(entry: Path) -> bool:
    """Whether it is a temporary file or a lock."""
    return entry.name.startswith(LITTER) or entry.name == LOCK


def read_text(path: str | Path, most: int = 2**26, encoding: str = "utf-8") -> str:
    """The text of a file, which is read only if it has at most so many bytes, 64 MB; it may be a device without end.

    Raises:
        OSError: it cannot be read, or is larger.
        UnicodeDecodeError: it is no text in this encoding.
    """
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MB", str(path))
    return content.decode(encoding)


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
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose content becomes that of `path` when the block succeeds.

    `path` is new or an empty folder, which stays, since it may be a link or where a disk is mounted. On an error
    nothing is left behind; what a process left that was killed is removed by the next one that makes the same folder.

    Raises:
        CrispsegError: `path` is a file or holds something, cannot be written, or another process is making it.
    """
    path = check_new_folder(path)
    beside = path if path.exists() else path.absolute().parent
    name = f"{LITTER}{hashlib.sha256(os.fsencode(path.absolute().name)).hexdigest()[:_DIGITS]}"  # of any length
    with ExitStack() as stack:
        _taken(stack, writable_folder(beside) / f"{name}.lock", str(path))
        check_new_folder(path)  # which another process may have made meanwhile
        temporary = beside / name
        _removed(temporary)
        temporary.mkdir()
        try:
            yield temporary
            if beside == path:
                for entry in temporary.iterdir():
                    entry.replace(path / entry.name)
                temporary.rmdir()
            else:
                temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def check_new_folder(path: str | Path) -> Path:
    """`path`, which is new or an empty folder; temporary files of a process that was killed do not count.

    Raises:
        CrispsegError: it is not.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(not _left(entry) for entry in path.iterdir())):
        raise CrispsegError(f"{path} is {'not empty' if path.is_dir() else 'a file'}; give a new folder")
    if path.is_symlink() and not path.exists():
        raise CrispsegError(f"{path} is a link that leads nowhere; give a new folder")
    return path
