"""A registry of a few lines: names to things, refusing duplicates."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from crispseg.errors import CrispsegError, did_you_mean

T = TypeVar("T")
E = TypeVar("E")


class Registry(Generic[T]):
    """Maps names to classes or functions of one kind; `registry["typo"]` says what was meant.

    Args:
        kind: what the entries are, for errors.
        hint: end of the error for an unknown name.
        filled_by: module whose import registers the entries that are not where the registry is.
    """

    def __init__(self, kind: str, hint: str = "", filled_by: str | None = None) -> None:
        self.kind = kind
        self.hint = hint
        self.filled_by = filled_by
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[E], E]:
        """Decorator: `@fuses.register("fam")` above the class.

        Raises:
            CrispsegError: the name is taken.
        """

        def add(entry: E) -> E:
            if name in self._entries:
                raise CrispsegError(f"{self.kind} '{name}' is registered already; choose another name")
            self._entries[name] = cast(T, entry)
            return entry

        return add

    def names(self) -> list[str]:
        self._fill()
        return sorted(self._entries)

    def _fill(self) -> None:
        """Import what registers entries far from here, when they are first asked for."""
        if self.filled_by:
            importlib.import_module(self.filled_by)

    def __getitem__(self, name: str) -> T:
        if isinstance(name, str) and name not in self._entries:
            self._fill()
        if not isinstance(name, str) or name not in self._entries:
            raise CrispsegError(f"unknown {self.kind} '{name}'{did_you_mean(str(name), self.names())}" + self.hint)
        return self._entries[name]
