"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crispseg.errors import CrispsegError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to `path` when the block succeeds.

    The suffix is kept, so writers that choose a format by it work. On an error the temporary file is removed and
    whatever stood at `path` before is untouched.

    Raises:
        CrispsegError: the folder cannot be written, or `path` is a folder.
    """
    path = writable_file(path)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)  # with the permissions that umask and folder give any new file
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # some writers make it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    nothing is left behind.

    Raises:
        CrispsegError: `path` is a file or holds something, or cannot be written.
    """
    path = check_new_folder(path)
    beside = path if path.exists() else path.absolute().parent
    temporary = writable_folder(beside) / f".{path.name}-{secrets.token_hex(4)}"
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
    """`path`, which is new or an empty folder.

    Raises:
        CrispsegError: it is not.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CrispsegError(f"{path} is {'not empty' if path.is_dir() else 'a file'}; give a new folder")
    if path.is_symlink() and not path.exists():
        raise CrispsegError(f"{path} is a link that leads nowhere; give a new folder")
    return path
