"""The kinds of findings: code, severity, what it is and what to do. They are listed in `kinds.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import resources
from typing import Any, NamedTuple


class Severity(IntEnum):
    """An error stops training or makes scores wrong; a warning may cost quality; information is worth knowing."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


class Kind(NamedTuple):
    """A kind of finding."""

    severity: Severity
    meaning: str
    remedy: str
    fix: str
    """What `--fix` does about it; empty where nothing."""


def _read() -> dict[str, Kind]:
    text = resources.files("crispseg.doctor").joinpath("kinds.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row.pop("code"): Kind(Severity[row.pop("severity").upper()], **row) for row in rows}


KINDS: dict[str, Kind] = _read()
"""Code → kind, in the order in which findings of one severity are told."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault, and where it was found."""

    code: str
    severity: Severity
    message: str
    remedy: str
    count: int
    """Of files, pairs or classes."""
    files: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """Numbers for the JSON report."""


def finding(
    code: str,
    message: str,
    files: Iterable[object] = (),
    *,
    count: int | None = None,
    remedy: str | None = None,
    severity: Severity | None = None,
    **details: Any,
) -> Finding:
    """A finding of a kind in `KINDS`, whose severity and remedy it has unless they are given."""
    kind, names = KINDS[code], tuple(map(str, files))
    return Finding(
        code,
        kind.severity if severity is None else severity,
        message,
        kind.remedy if remedy is None else remedy,
        len(names) if count is None else count,
        names,
        details,
    )


def counted(code: str, files: Sequence[object], subject: str, rest: str, **more: Any) -> list[Finding]:
    """A finding about files, such as "3 images have" and `rest` for the subject "image has"; none without files."""
    return [finding(code, f"{plural(len(files), subject)} {rest}", files, **more)] if files else []


def worst(findings: Sequence[Finding]) -> Severity:
    """The highest severity; information where there are no findings."""
    return max((one.severity for one in findings), default=Severity.INFORMATION)


_VERBS = {"has": "have", "is": "are", "holds": "hold", "shows": "show"}


def plural(count: int, subject: str) -> str:
    """`3 images` of "image", `1 image has` and `3 images have` of "image has"."""
    noun, _, verb = subject.rpartition(" ") if subject.split()[-1] in _VERBS else (subject, "", "")
    words = f"{count} {noun}{'' if count == 1 else 's'}"
    return f"{words} {verb if count == 1 else _VERBS[verb]}" if verb else words
