"""What a kind of inputs is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from crispseg.errors import CrispsegError


class Lost(Exception):
    """Something that was there, or was said to have been written, is not."""


@dataclass
class Case:
    """An input."""

    what: str
    """What it was and what happened to it."""
    readers: dict[str, Callable[[], Any]]
    """How crispseg reads it; each gives what it found, or raises. By the first it counts as read or refused."""
    sound: dict[str, str]
    """Of readers that have to notice damage: the `digest` of the only thing that they may find."""


class Kind:
    """A kind of inputs."""

    name: ClassVar[str]

    def __init__(self, place: Path) -> None:
        """Make in a folder what all inputs share."""

    def case(self, random: Random, folder: Path) -> Case:
        """The next input, in a folder of its own."""
        raise NotImplementedError


def outcomes(case: Case) -> tuple[dict[str, str], list[str]]:
    """The `digest` of what each reader found, or nothing of one that refused; and what those said.

    Raises:
        Exception: anything that is no `CrispsegError`.
    """
    found, refusals = {}, []
    for name, read in case.readers.items():
        try:
            found[name] = digest(read())
        except CrispsegError as error:
            refusals.append(str(error))
    return found, refusals


def digest(value: Any) -> str:
    """What arrays, tensors and mappings of them hold, in short."""
    found = hashlib.blake2b(digest_size=16)
    if isinstance(value, dict):
        for key in sorted(value):
            found.update(f"{key} {digest(value[key])}".encode("utf-8", "surrogatepass"))
    elif isinstance(value, tuple | list):
        for part in value:
            found.update(digest(part).encode())
    elif hasattr(value, "dtype"):
        array = np.asarray(value)
        found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    else:
        found.update(repr(value).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
