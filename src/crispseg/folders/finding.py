"""What a check of data reports: a code with files and values. `crispseg.folders.wording` makes its text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import resources
from typing import Any, NamedTuple


class Severity(IntEnum):
    """Severity of a finding; an error stops training or makes scores wrong, a warning may reduce quality."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


class Kind(NamedTuple):
    """A kind of finding: its usual severity, and templates of its text."""

    severity: Severity
    message: str
    remedy: str
    fix: str  # what a corrected copy does about it; empty if nothing


ROWS = csv.DictReader(resources.files("crispseg.folders").joinpath("kinds.csv").read_text("utf-8").splitlines())
FINDING_KINDS = {row.pop("code"): Kind(Severity[row.pop("severity").upper()], **row) for row in ROWS}
"""Code → kind, in the order in which findings of one severity are listed."""


@dataclass(frozen=True)
class Finding:
    """A fault or other fact of the data."""

    code: str  # a key of `FINDING_KINDS`
    severity: Severity
    files: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)  # numbers and names in its text
    settings: Sequence[Mapping[str, object]] = ()  # each would correct it

    @property
    def count(self) -> int:
        """Number of files, or of the groups of files or classes that it concerns."""
        return int(self.values.get("count", len(self.files)))


def finding_of(
    code: str,
    files: Iterable[object] = (),
    severity: Severity | None = None,
    settings: Sequence[Mapping[str, object]] = (),
    **values: Any,
) -> Finding | None:
    """Return a finding, by default with the usual severity of its kind; None without files and without a count."""
    names = tuple(map(str, files))
    if not values.get("count", len(names)):
        return None
    return Finding(code, FINDING_KINDS[code].severity if severity is None else severity, names, values, settings)
