"""Atomic writing of files and folders, and locks on folders."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock, Timeout

from crispseg.config.files import real_path
from crispseg.config.settings import shortened
from crispseg.errors import CrispsegError, CrispsegWarning

LITTER = ".crispseg-"  # prefix of the names of temporary files and folders
LOCK = ".crispseg.lock"

RUN = frozenset({"config.yaml", "checkpoints"})
"""Names in the folder of a training run, whose pictures are no data."""
SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN")

MAX_FOLDERS = 64  # innermost folders by which a path of another system is searched for


def user_path(path: str | os.PathLike[str], source: object = None) -> Path:
    """Return a path with `~` at its start replaced by the user's home; a name that no system has is refused.

    Errors name `source`, such as the file that contains the path.
    """
    place = "" if source is None else f"{source}: "
    try:
        expanded = Path(path).expanduser()
        expanded.lstat()
    except RuntimeError:
        raise CrispsegError(f"{place}{path} begins with the home folder of an unknown user; check the path") from None
    except (OSError, ValueError) as error:  # a null character or half of a surrogate pair is a ValueError
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            name = shortened(str(path), 40)
            raise CrispsegError(f"{place}'{name}' is not the name of a file; check the path") from None
    return expanded


def regular_file(path: str | Path) -> Path:
    """Return a path, or raise a CrispsegError if it is a pipe, a device or a socket, which may never end."""
    path = user_path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CrispsegError(f"{path} is a pipe or a device, not a regular file; give a file")
    return path


def foreign_endings(path: str) -> list[Path]:
    """Return a path that another system wrote as relative paths, from all its folders to the name alone.

    "C:\\day%201\\a.png" becomes "C:/day 1/a.png", "day 1/a.png" and "a.png".
    """
    parts = [part for part in re.split(r"[/\\]", unquote(path)) if part not in ("", ".")]
    parts = parts[-MAX_FOLDERS:]  # time would be quadratic
    return [Path(*parts[start:]) for start in range(max(1, len(parts)))]


def files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files in a folder and its sub-folders. Links are followed; hidden ones and runs in it are left out.

    `above` are the real paths of the folders above, since a link may lead back to them.
    """
    real, entries = os.path.realpath(folder), _entries(folder)
    if real in above or (above and RUN.issubset(entry.name for entry in entries)):
        return
    for entry in entries:
        if entry.name[0] == "." or entry.name in SYSTEM_FOLDERS:
            continue
        if entry.is_dir():
            yield from files_below(folder / entry.name, above | {real})
        elif entry.is_file() or not Path(entry.path).exists():  # readers report a broken link
            yield folder / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise CrispsegError(f"{folder} is missing or not a folder; give a folder") from None
    except OSError as error:
        raise CrispsegError(f"{folder} cannot be read ({error.strerror}); check its permissions, or move it") from None


def digest(*files: Path) -> str:
    """Return the combined SHA-256 of files; unreadable files count as empty."""
    combined = hashlib.sha256()
    for path in files:
        with suppress(OSError, CrispsegError), regular_file(path).open("rb") as file:
            combined.update(hashlib.file_digest(file, "sha256").digest())
    return combined.hexdigest()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder with the same suffix, and rename it to `path` on success.

    After an error the temporary file is removed and an existing `path` is unchanged; an `OSError` names `path`. If the
    folder cannot be written, or `path` is a folder, a CrispsegError is raised.
    """
    path = writable_file(path)
    temporary = path.with_name(f"{LITTER}{secrets.token_hex(8)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)  # gets the default permissions of new files
        mode = temporary.stat().st_mode
        yield temporary
        with suppress(OSError):  # mounts without modes
            temporary.chmod(mode)  # some writers restrict the permissions
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | Path, text: str) -> None:
    """Write a text file that exists only when it is complete, see `atomic_path`.

    File names that are not UTF-8 are written byte by byte.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def written_lines(path: Path) -> list[str]:
    """Return the lines of a file of `write_file`."""
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def write_table(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write the rows of a CSV file that exists only when it is complete, see `atomic_path`.

    File names that are not UTF-8 are written byte by byte.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file).writerows(rows)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder and rename it to `path` on success, see `check_new_folder`."""
    path = real_path(check_new_folder(path))
    with workplace(path) as made:
        check_new_folder(path)  # another process may have finished it meanwhile
        yield made
        made.replace(path)


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to an output, which is locked against other processes.

    The folder is removed at the end, or by the next process with this output if this one is killed.
    """
    writable_folder(path.parent)
    place = path.parent / f"{LITTER}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"
    try:
        with owned(place, output=path):
            made = place / f"{LITTER}made"
            made.mkdir()
            try:
                yield made
            finally:
                shutil.rmtree(made, ignore_errors=True)
    finally:
        with suppress(OSError):  # another process waits for it
            place.rmdir()


@contextmanager
def owned(folder: Path, *inside: Path, output: Path | None = None) -> Iterator[None]:
    """Lock a folder against other processes, and remove temporary files of a killed owner.

    The operating system releases the lock when the process ends in any way. Further folders `inside` are also cleaned.
    A CrispsegError is raised if another process owns the folder. A file system without locks gives a warning. Both name
    the `output`, by default the folder.
    """
    file = writable_folder(folder) / LOCK
    wait = 1  # seconds, because a killed process may need a moment to end
    lock = FileLock(file, timeout=wait, thread_local=False)  # any thread may release it
    try:
        lock.acquire()
    except Timeout:
        used = f"{output or folder} is in use by another process"
        raise CrispsegError(f"{used}; wait for it, or choose another folder") from None
    except OSError as error:
        unguarded = f"{output or folder} is on a file system without locks ({error.strerror})"
        warnings.warn(f"{unguarded}; let no other process write there", CrispsegWarning, stacklevel=3)
    try:
        for cleaned in {folder, *inside}:
            remove_litter(cleaned)
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def remove_litter(folder: Path) -> None:
    """Remove temporary files and folders that a killed process left in a folder."""
    for litter in folder.glob(f"{LITTER}*"):
        if litter.is_dir():
            shutil.rmtree(litter, ignore_errors=True)
        else:
            litter.unlink(missing_ok=True)


def check_new_folder(path: str | Path) -> Path:
    """Return `path` if it is new or an empty folder, otherwise raise a CrispsegError."""
    path = user_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CrispsegError(f"{path} is {'not empty' if path.is_dir() else 'a file'}; give a new folder")
    return path


def writable_folder(path: str | Path, remedy: str = "choose another folder") -> Path:
    """Create a missing folder and check that it can be written, or raise a CrispsegError."""
    path = user_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise CrispsegError(f"cannot write to the folder {path} ({error.strerror}); {remedy}") from None
    return path


def writable_file(path: str | Path) -> Path:
    """Check that a file can be written, and create its missing folder, or raise a CrispsegError."""
    path = user_path(path)
    writable_folder(path.parent)
    if path.is_dir():
        raise CrispsegError(f"cannot write the file {path}: a folder has this name; choose another name")
    return path
