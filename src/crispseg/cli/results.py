"""Results of commands as JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from crispseg.config.settings import Tree
from crispseg.io.files import write_file

STDOUT = Path("-")  # file name that means the standard output


def check_json(path: Path | None) -> None:
    """Check, before long work starts, that JSON can be written to `path`; it raises the errors of `check_page`."""
    if path not in (None, STDOUT):
        from crispseg.visualization.pages import check_page  # imports jinja2

        check_page(path, [".json"])


def finite(values: Any) -> Any:
    """Return values with None for infinity and NaN, which JSON lacks."""
    match values:
        case dict():
            return {key: finite(value) for key, value in values.items()}
        case list() | tuple():
            return [finite(value) for value in values]
        case float() if not math.isfinite(values):
            return None
    return values


def write_json(path: Path, values: Tree) -> None:
    """Write plain values and paths to a file, or print them in ASCII, which every terminal has."""
    text = json.dumps(finite(values), indent=2, ensure_ascii=path == STDOUT, default=os.fspath)
    if path == STDOUT:
        print(text)
    else:
        write_file(path, f"{text}\n")
