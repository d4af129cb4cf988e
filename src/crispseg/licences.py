"""Licences of the code, the weights and the data that a model descends from."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from pydantic.dataclasses import dataclass

NOT_STATED = "not stated"  # by the user
UNKNOWN = "unknown"  # the source states none


@dataclass(frozen=True)
class Licence:
    """Entry of a ledger; exported files have their own checksum under the key "sha256"."""

    kind: Literal["code", "weights", "data"]
    name: str
    licence: str
    source: str = ""  # web page, or name of a file or folder
    checksum: str = ""  # SHA-256 of a file of weights

    @classmethod
    def of_file(cls, name: str, licence: str, file: Path, source: str = "") -> Self:
        """Return the licence of a file of weights; the default source is its name."""
        return cls("weights", name, licence, source or file.name, sha256(file.read_bytes()).hexdigest())

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.licence}; {self.source} {self.checksum}".rstrip()


CODE = (
    Licence("code", "crispseg", "Apache-2.0", "LICENSE"),
    Licence("code", "timm", "Apache-2.0", "https://github.com/huggingface/pytorch-image-models"),
)
