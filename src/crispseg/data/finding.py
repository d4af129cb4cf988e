"""What a check of data reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """Severity of a finding; an error stops training or makes scores wrong, a warning may reduce quality."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """A fault or other fact of the data, with its files and a remedy."""

    code: str
    """Its kind, one of `crispseg.doctor.KINDS`."""
    severity: Severity
    message: str
    remedy: str
    count: int
    """Number of files, pairs, groups or classes; 0 if nothing was found."""
    files: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for the JSON report."""

    @property
    def line(self) -> str:
        """Message and remedy."""
        return f"{self.message}; {self.remedy}"
