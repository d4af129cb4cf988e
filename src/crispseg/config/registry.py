"""Registries that refuse duplicates, options of registered entries, and plugins that register more."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from crispseg.config.files import real_path
from crispseg.config.settings import Field, checked
from crispseg.errors import CrispsegError, did_you_mean, one_line

T = TypeVar("T")
E = TypeVar("E")


class Registry(Generic[T]):
    """Map names to classes or functions of one kind; `registry["typo"]` suggests the intended name.

    Args:
        kind, hint: kind of the entries, and end of the error message for an unknown name.
        filled_by: module that registers the entries outside the registry's own module when it is imported.
    """

    def __init__(self, kind: str, hint: str = "", filled_by: str | None = None) -> None:
        self.kind = kind
        self.hint = hint
        self.filled_by = filled_by
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[E], E]:
        """Return a decorator, as in `@fuses.register("fam")`; a registered name raises a `CrispsegError`."""

        def add(entry: E) -> E:
            if name in self._entries:
                raise CrispsegError(f"{self.kind} '{name}' is already registered; choose another name")
            self._entries[name] = cast(T, entry)
            return entry

        return add

    def names(self) -> list[str]:
        if self.filled_by:
            importlib.import_module(self.filled_by)
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        if name not in self.names():
            raise CrispsegError(f"unknown {self.kind} '{name}'{did_you_mean(str(name), self.names())}{self.hint}")
        return self._entries[name]


def checked_options(owner: str, options: Mapping[str, Any], known: Mapping[str, Field]) -> dict[str, Any]:
    """Return the options, converted to their types; errors are a `CrispsegError` with owner, option and value."""
    valid = {}
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known) if known else "; it has none"
            raise CrispsegError(f"{owner} has no option '{option}'{hint}")
        try:
            valid[option] = checked(known[option].kind, value, f"option '{option}' of {owner}")
        except CrispsegError as error:
            raise CrispsegError(str(error)) from None  # the message would show a field as a flag
    return valid


def with_defaults(owner: str, options: Mapping[str, Any], known: Mapping[str, Field]) -> dict[str, Any]:
    """Return all options, checked by `checked_options`; unspecified options have their defaults."""
    complete = {key: copy.deepcopy(option.default) for key, option in known.items()}
    complete |= checked_options(owner, options, known)
    for key, value in complete.items():
        if value is MISSING:
            raise CrispsegError(f"{owner} needs a value for its option '{key}'")
    return complete


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run Python files once each, so that they register parts by name; a failing file raises a `CrispsegError`."""
    for file in files:
        path = real_path(file)
        name = f"crispseg_plugin_{path.stem}_{abs(hash(path))}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise CrispsegError(f"has {file}, which is not a Python file; give the path of a .py file", "plugins")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise CrispsegError(f"plugin {file} fails: {type(error).__name__}: {one_line(error)}") from error
