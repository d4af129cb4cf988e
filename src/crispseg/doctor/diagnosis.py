"""All findings about data, from the facts of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crispseg.data.split_check import SplitReport, summary
from crispseg.doctor.classes import class_findings
from crispseg.doctor.kinds import KINDS, Finding, Severity, finding
from crispseg.doctor.pairs import file_findings, pair_findings, pairing_findings
from crispseg.doctor.scan import PairFacts, readable, scan
from crispseg.doctor.splits import duplicate_findings
from crispseg.doctor.subject import Subject
from crispseg.doctor.values import Reading, read_values, usable
from crispseg.labels import IGNORE


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found."""

    subject: Subject
    facts: tuple[PairFacts, ...]
    findings: tuple[Finding, ...]
    """The severest first, then in the order of `KINDS`."""
    reading: Reading | None
    """How the masks are best read; None if none can be."""
    reports: tuple[SplitReport, ...]
    """Reports of the splits of which anything could be read."""

    @property
    def severity(self) -> Severity:
        """That of the worst finding; information where there are none."""
        return max((one.severity for one in self.findings), default=Severity.INFORMATION)


def diagnose(subject: Subject, workers: int | None = None) -> Diagnosis:
    """Read every file once, in threads, and say what is wrong; see `scan` for `workers`."""
    facts = scan(subject, workers)
    reading = read_values(subject, facts)
    reports = _reports(subject, facts, reading) if reading else []
    found = [
        *pairing_findings(subject),
        *file_findings(facts, subject.channels),
        *pair_findings(facts),
        *duplicate_findings(subject, facts),
    ]
    if reading:
        found += [*reading.findings, *_label_findings(facts, reading), *class_findings(reports)]
    order = list(KINDS)
    told = sorted((one for one in found if one.count), key=lambda one: (-one.severity, order.index(one.code)))
    return Diagnosis(subject, tuple(facts), tuple(told), reading, tuple(reports))


def _reports(subject: Subject, facts: Sequence[PairFacts], reading: Reading) -> list[SplitReport]:
    """What `check_split` would say of the pairs that can be read."""
    reports = []
    for split in subject.splits:
        masks = [mask for one, _, mask in readable(facts) if one.split == split and not mask.header.lossy]
        if masks:
            histograms = [reading.decode(mask).histogram(mask) for mask in masks]
            reports.append(summary(split, reading.labels, histograms, [mask.size for mask in masks]))
    return reports


def _label_findings(facts: Sequence[PairFacts], reading: Reading) -> list[Finding]:
    """Masks without labels, and masks of one class."""
    by_count: dict[int, list[str]] = {0: [], 1: []}
    for mask in usable(facts):
        decoded = reading.decode(mask)
        classes = np.unique(decoded.labels[decoded.labels != IGNORE])
        if not decoded.bad.any() and len(classes) in by_count:
            by_count[len(classes)].append(mask.header.file)
    return [finding("all-ignored", by_count[0]), finding("single-class-mask", by_count[1])]
