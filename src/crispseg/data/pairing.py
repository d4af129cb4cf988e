"""What can be wrong with which files belong together: raised as an error, or collected to be reported together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, TypeAlias

from crispseg.errors import CrispsegError

PairingKind: TypeAlias = Literal["image-without-mask", "mask-without-image", "ambiguous-names", "listed-file-missing"]


class PairingFault(NamedTuple):
    """A kind of fault and the files, or the entries of a list, that have it."""

    kind: PairingKind
    files: tuple[str, ...]


_collected: ContextVar[list[PairingFault] | None] = ContextVar("_collected", default=None)


@contextmanager
def collected_faults() -> Iterator[list[PairingFault]]:
    """Within it, data sources leave out files that do not pair, and list them here, where they would raise."""
    faults: list[PairingFault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def pairing_fault(message: str, *found: tuple[PairingKind, Iterable[object]]) -> None:
    """Report files that do not pair, of one kind or several.

    Raises:
        CrispsegError: the message, outside of `collected_faults`.
    """
    faults = _collected.get()
    if faults is None:
        raise CrispsegError(message)
    new = (PairingFault(kind, tuple(map(str, files))) for kind, files in found)
    faults += [fault for fault in new if fault.files and fault not in faults]
