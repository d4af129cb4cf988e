"""Paths, and text files that others wrote."""

from __future__ import annotations

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from crispseg.errors import CrispsegError, one_line


def real_path(path: str | Path) -> Path:
    """Return an absolute path without links; a link to itself stays, while `Path.resolve` would raise an error."""
    return Path(os.path.realpath(path))


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark; any other raises a `CrispsegError`."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("it is not a regular file")
        content = Path(path).read_bytes()
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", errors)
        if "\0" in text:
            raise ValueError("it contains null characters")
        return text
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({one_line(error)})" if Path(path).exists() else "is missing"
        raise CrispsegError(f"{path!s:.300} {problem}; give a UTF-8 text file") from None
