"""All findings about data, from the facts of its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crispseg.data.check import SplitReport, summary
from crispseg.doctor.classes import class_findings
from crispseg.doctor.facts import ImageFacts, MaskFacts, PairFacts
from crispseg.doctor.kinds import KINDS, Finding, Severity, finding, plural, worst
from crispseg.doctor.pairs import file_findings, pair_findings, pairing_findings
from crispseg.doctor.scan import scan
from crispseg.doctor.splits import duplicate_findings
from crispseg.doctor.subject import Subject
from crispseg.doctor.values import Reading, read_values
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
    """Of the splits of which anything could be read."""

    @property
    def severity(self) -> Severity:
        return worst(self.findings)


def diagnose(subject: Subject, workers: int | None = None) -> Diagnosis:
    """Read every file once, in threads, and say what is wrong; see `scan` for `workers`."""
    facts = scan(subject, workers)
    reading = read_values(subject, facts)
    reports = _reports(facts, reading) if reading else []
    found = [
        *pairing_findings(subject),
        *file_findings(facts, subject.channels),
        *pair_findings(facts),
        *duplicate_findings(subject, facts),
    ]
    if reading:
        found += [*reading.findings, *_label_findings(facts, reading), *class_findings(reports)]
    order = list(KINDS)
    found.sort(key=lambda one: (-one.severity, order.index(one.code)))
    return Diagnosis(subject, tuple(facts), tuple(found), reading, tuple(reports))


def _reports(facts: Sequence[PairFacts], reading: Reading) -> list[SplitReport]:
    """What `check_split` would say of the pairs that can be read."""
    by_split: dict[str, list[PairFacts]] = defaultdict(list)
    for one in facts:
        if isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts) and not one.mask.header.lossy:
            by_split[one.split].append(one)
    reports = []
    for split, pairs in by_split.items():
        masks = [one.mask for one in pairs if isinstance(one.mask, MaskFacts)]
        histograms = [reading.decode(split, mask).histogram(mask) for mask in masks]
        reports.append(summary(split, reading.labels, histograms, [mask.size for mask in masks]))
    return reports


def _label_findings(facts: Sequence[PairFacts], reading: Reading) -> list[Finding]:
    """Masks without labels, and masks of one class."""
    empty, single = [], []
    for one in facts:
        if not isinstance(one.mask, MaskFacts) or one.mask.header.lossy:
            continue
        decoded = reading.decode(one.split, one.mask)
        if decoded.bad.any():
            continue
        classes = np.unique(decoded.labels[decoded.labels != IGNORE])
        if len(classes) == 0:
            empty.append(one.mask_file)
        elif len(classes) == 1:
            single.append(one.mask_file)
    found = []
    if empty:
        message = f"{plural(len(empty), 'mask', ('has', 'have'))} no labelled pixel, all is ignored"
        found.append(finding("all-ignored", message, empty))
    if single:
        message = f"{plural(len(single), 'mask', ('holds', 'hold'))} one class and nothing else"
        found.append(finding("single-class-mask", message, single))
    return found
