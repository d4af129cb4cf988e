"""The kinds of findings: code, severity, what it is, how it is told and what to do. They are listed in `kinds.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

from crispseg.data.mask_reading import MaskFault, Severity


class FindingKind(NamedTuple):
    """A kind of finding."""

    severity: Severity
    meaning: str
    message: str
    """A template for `str.format`: {count}, words such as {s} and {has} that go by it, and what a finding adds. Empty
    for what the reading of masks says itself."""
    remedy: str
    fix: str
    """What a corrected copy does about it; empty where nothing."""

    @property
    def left_out(self) -> bool:
        """Whether a corrected copy leaves the files out, each with its partner."""
        return self.fix == "leaves the pair out"


def _read() -> dict[str, FindingKind]:
    text = resources.files("crispseg.doctor").joinpath("kinds.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row.pop("code"): FindingKind(Severity[row.pop("severity").upper()], **row) for row in rows}


KINDS: dict[str, FindingKind] = _read()
"""Code → kind, in the order in which findings of one severity are told."""

_FORMS = {"s": "|s", "es": "|es", "has": "has|have", "is": "is|are", "holds": "holds|hold", "shows": "shows|show"}
"""Words in messages → what they are for one thing, and for several."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault, and where it was found."""

    code: str
    severity: Severity
    message: str
    remedy: str
    count: int
    """Number of files, pairs, groups or classes; 0 where nothing was found."""
    files: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for the JSON report."""


def finding(
    code: str,
    files: Iterable[object] = (),
    *,
    count: int | None = None,
    remedy: str | None = None,
    severity: Severity | None = None,
    details: Mapping[str, Any] | None = None,
    **words: object,
) -> Finding:
    """A finding of a kind in `KINDS`, whose severity and remedy it has unless they are given.

    Args:
        words: what the kind's message has to be filled with.
    """
    kind, names = KINDS[code], tuple(map(str, files))
    count = len(names) if count is None else count
    forms = {word: both.split("|")[count != 1] for word, both in _FORMS.items()}
    return Finding(
        code,
        kind.severity if severity is None else severity,
        kind.message.format(count=count, **forms, **words),
        kind.remedy if remedy is None else remedy,
        count,
        names,
        details or {},
    )


def finding_of(fault: MaskFault) -> Finding:
    """The finding that a fault in the reading of masks is."""
    count = max(len(fault.files), 1)
    return Finding(fault.kind, fault.severity, fault.message, fault.remedy, count, fault.files, fault.details)
