"""A registry of a few lines: names to things, refusing duplicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from crispseg.errors import CrispsegError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to classes or functions of one kind; `registry["typo"]` says what was meant."""

    def __init__(self, kind: str, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: `@fuses.register("fam")` above the class.

        Raises:
            CrispsegError: the name is taken.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                raise CrispsegError(f"{self.kind} '{name}' is registered already; choose another name")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        if not isinstance(name, str) or name not in self._entries:
            raise CrispsegError(f"unknown {self.kind} '{name}'{did_you_mean(str(name), self.names())}" + self.hint)
        return self._entries[name]
