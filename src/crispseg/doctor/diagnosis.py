"""All findings about data, from the facts of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crispseg.data.mask_lookup import NONE
from crispseg.data.mask_reading import MaskReading, Severity
from crispseg.data.split_check import SplitReport, summary
from crispseg.doctor.facts import MaskFacts, PairFacts, Subject, readable, scan
from crispseg.doctor.findings import (
    KINDS,
    Finding,
    class_findings,
    duplicate_findings,
    file_findings,
    finding,
    finding_of,
    pair_findings,
    pairing_findings,
)
from crispseg.labels import IGNORE


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found."""

    subject: Subject
    facts: tuple[PairFacts, ...]
    findings: tuple[Finding, ...]
    """The severest first, then in the order of `KINDS`."""
    reading: MaskReading | None
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
    reading = subject.reading([one.mask.statistics for one in facts if isinstance(one.mask, MaskFacts)])
    reports = _reports(subject, facts, reading.best) if reading else []
    found = [
        *pairing_findings(subject),
        *file_findings(facts, subject.channels),
        *pair_findings(facts),
        *duplicate_findings(subject, facts),
    ]
    if reading:
        found += [*map(finding_of, reading.faults), *_label_findings(facts, reading.best)]
        found += [one for one in class_findings(reports) if one.code not in {fault.kind for fault in reading.faults}]
    order = list(KINDS)
    told = sorted((one for one in found if one.count), key=lambda one: (-one.severity, order.index(one.code)))
    return Diagnosis(subject, tuple(facts), tuple(told), reading, tuple(reports))


def _reports(subject: Subject, facts: Sequence[PairFacts], reading: MaskReading) -> list[SplitReport]:
    """What `check_split` would say of the pairs that can be read."""
    reports = []
    for split in subject.splits:
        masks = [mask.statistics for one, _, mask in readable(facts) if one.split == split]
        if masks:
            labels = [np.minimum(reading.labels_of(mask), IGNORE) for mask in masks]
            counts = [np.bincount(*both, 256) for both in zip(labels, (mask.counts for mask in masks), strict=True)]
            reports.append(
                summary(split, reading.labels, [each.astype(int) for each in counts], [mask.size for mask in masks])
            )
    return reports


def _label_findings(facts: Sequence[PairFacts], reading: MaskReading) -> list[Finding]:
    """Masks without labels, and masks of one class."""
    by_count: dict[int, list[str]] = {0: [], 1: []}
    for one in facts:
        if isinstance(one.mask, MaskFacts):
            labels = set(reading.labels_of(one.mask.statistics).tolist())
            if NONE not in labels and len(labels - {IGNORE}) in by_count:
                by_count[len(labels - {IGNORE})].append(one.mask_file)
    return [finding("all-ignored", by_count[0]), finding("single-class-mask", by_count[1])]
