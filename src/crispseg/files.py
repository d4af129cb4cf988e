"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import secrets
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
