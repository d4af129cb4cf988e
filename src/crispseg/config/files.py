"""Paths, and text files that others wrote."""

from __future__ import annotations

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from crispseg.errors import CrispsegError, one_line


def real_path(path: str | Path) -> Path:
    """Return an absolute path without links; a link to itself stays, while `Path.resolve` would raise an error."""
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        raise CrispsegError("the working folder no longer exists; change to another one") from None


def decoded_file(path: str | Path, errors: str = "strict") -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark.

    Raises:
        OSError: the file cannot be read, or is a folder, a pipe or a device.
        ValueError: the file is not text.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise OSError("it is not a regular file")
    content = Path(path).read_bytes()
    text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", errors)
    if "\0" in text:
        raise ValueError("it contains null characters")
    return text


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Return the text of a file as `decoded_file` does; its errors become a `CrispsegError`."""
    try:
        return decoded_file(path, errors)
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({one_line(error)})" if Path(path).exists() else "is missing"
        raise CrispsegError(f"{path!s:.300} {problem}; give a UTF-8 text file") from None
