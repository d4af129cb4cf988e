"""Parts that live outside this package: Python files that register them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from crispseg.errors import CrispsegError, one_line


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run Python files, once each, so that what they register can be used by name.

    Raises:
        CrispsegError: a file is missing, or fails.
    """
    for file in files:
        try:
            path = Path(file).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a ring of links, a NUL byte
            raise CrispsegError(f"plugin {file} is no path ({one_line(error)}); give the path of a .py file") from None
        name = f"crispseg_plugin_{path.stem}_{abs(hash(path))}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise CrispsegError(f"plugin {file} is no Python file; give the path of a .py file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise CrispsegError(f"plugin {file} fails: {type(error).__name__}: {one_line(error)}") from error
