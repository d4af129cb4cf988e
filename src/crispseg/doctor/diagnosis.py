"""Findings about data, from the facts of its files, as text and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from crispseg.config.settings import plural
from crispseg.data.finding import Finding, Severity
from crispseg.data.folder import Folder
from crispseg.data.mask_lookup import MaskLookup, MaskStatistics, count_values
from crispseg.data.mask_reading import MaskReading
from crispseg.data.split_check import Counted, SplitReport, report_of
from crispseg.doctor.duplicates import duplicate_findings
from crispseg.doctor.facts import PairScan, Subject, readable, scan
from crispseg.doctor.findings import KINDS, class_findings, file_findings, finding
from crispseg.doctor.outlines import outline_findings
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, LabelSet


@dataclass(frozen=True)
class Diagnosis:
    """Results of doctor."""

    subject: Subject
    facts: tuple[PairScan, ...]
    findings: tuple[Finding, ...]  # by severity, then in the order of `KINDS`
    reading: MaskReading | None  # meaning of the masks; None if no mask can be read
    reports: tuple[SplitReport, ...]  # of the splits with any readable pair

    @property
    def severity(self) -> Severity:
        """Severity of the worst finding; information if there are none."""
        return max((one.severity for one in self.findings), default=Severity.INFORMATION)


def diagnose(subject: Subject, workers: int | None = None) -> Diagnosis:
    """Read every file once, in several threads, and return all findings."""
    facts = scan(subject, workers)
    reading = subject.reading([one.mask for one in facts if isinstance(one.mask, MaskStatistics)])
    if reading is None or not reading.lookup.tolerance:
        for at, (_, _, _, mask) in enumerate(facts):
            if isinstance(mask, MaskStatistics) and mask.lossy:
                facts[at] = facts[at]._replace(mask=CrispsegError(mask.lossy))
    reports = _reports(facts, reading) if reading else []
    unsure = {"shifted-numbers": {"copy": False}}  # all pairs may be wrong
    found = [finding(kind, files, details=unsure.get(kind)) for kind, files in subject.faults.items()]
    for split, reason in subject.unavailable.items():
        found.append(finding("split-unavailable", count=1, split=split, reason=reason))
    found += [*file_findings(facts), *duplicate_findings(subject, facts), *outline_findings(facts)]
    if isinstance(subject.source, Folder):
        found += subject.source.legends()
    if reading:
        masks = [one.mask for one in facts if isinstance(one.mask, MaskStatistics)]
        void = [mask.file for mask in masks if (reading.lookup.labels_of(mask) == IGNORE).all()]
        soft_edges = {"interpolated-edges"} if reading.lookup.tolerance else set()
        known = soft_edges | {fault.code for fault in reading.faults}
        found += [finding("all-ignored", void), *class_findings(reports)]
        found = [*reading.faults, *(one for one in found if one.code not in known)]
    order = list(KINDS)
    told = sorted(filter(lambda one: one.count, found), key=lambda one: (-one.severity, order.index(one.code)))
    return Diagnosis(subject, tuple(facts), tuple(told), reading, tuple(reports))


def _reports(facts: Sequence[PairScan], reading: MaskReading) -> list[SplitReport]:
    """Return the statistics of each split with a readable pair; `facts` are in the order of the splits."""
    counted: dict[str, list[Counted]] = defaultdict(list)
    lookup = reading.lookup
    for one, _, mask in readable(facts):
        if mask.file not in reading.left_out:
            labels, quarters = lookup.labels_of(mask), mask.quarters
            if mask.distinct > len(mask.values) and lookup.tolerance:  # more colours than were kept
                labels, quarters, _ = count_values(lookup.find(lookup.read(Path(mask.file), lossy=True)))
            counted[one.split].append((labels, quarters, mask.size))
    return [report_of(split, reading.labels, masks) for split, masks in counted.items()]


EXAMPLES = 3
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFORMATION: "cyan"}

EXIT_STATUS = {Severity.INFORMATION: 0, Severity.WARNING: 1, Severity.ERROR: 3}
"""Exit status of the command by the worst finding; 2 is for mistakes in the command itself."""


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return all findings with all files."""
    splits: Any = {split: {"pairs": len(items)} for split, items in diagnosis.subject.splits.items()}
    for one in diagnosis.reports:
        sizes = {"smallest": one.smallest, "largest": one.largest}
        splits[one.split] |= {"pixels": one.counts.tolist(), "ignored": one.ignored, **sizes}
    findings = [
        {**vars(found), "severity": str(found.severity), "fixable": bool(KINDS[found.code].fix)}
        for found in diagnosis.findings
    ]
    return {
        "format": 1,
        "data": diagnosis.subject.source.name,
        "severity": str(diagnosis.severity),
        "classes": list(diagnosis.reading.labels.names) if diagnosis.reading else [],
        "splits": splits,
        "findings": findings,
    }


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print splits, classes and findings; lines are not wrapped, so that flags can be copied."""
    for part in _parts(diagnosis):
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, Text))


def _parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    pairs = ", ".join(f"{split} {len(items)}" for split, items in diagnosis.subject.splits.items())
    yield Text(f"{diagnosis.subject.source.name}: {pairs or 'no'} pairs")
    if diagnosis.reports and diagnosis.reading:
        yield class_table(diagnosis.reading.lookup, diagnosis.reading.labels, diagnosis.reports)
    for one in diagnosis.findings:
        yield Text()
        yield Text.assemble((f"{one.severity}  ", STYLES[one.severity]), (one.code, "bold"), f"  {one.message}")
        groups, reasons = one.details.get("groups", ()), one.details.get("reasons", {})
        examples = [*map(" = ".join, groups), *reasons.values()] or one.files
        yield from (Text(f"    {line}", style="dim") for line in examples[:EXAMPLES])
        if len(examples) > EXAMPLES:
            yield Text(f"    … and {len(examples) - EXAMPLES} more", style="dim")
        yield Text(f"    → {one.remedy}")
    counts = Counter(str(one.severity) for one in diagnosis.findings if one.severity > Severity.INFORMATION)
    conclusion = " and ".join(plural(count, noun) for noun, count in counts.items())  # errors come first
    yield Text()
    yield Text(conclusion or "No errors or warnings.", STYLES[diagnosis.severity] if diagnosis.findings else "green")


def class_meanings(lookup: MaskLookup) -> dict[int, str]:
    """Return the mask values of each class id and of 255: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items():
        found[label].append(value)
    if lookup.colors:
        return {label: ", ".join(str(list(one)) for one in every) for label, every in found.items()}
    meanings = {}
    for label, every in found.items():
        numbers = np.unique(every)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        meanings[label] = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
    return meanings


def class_table(lookup: MaskLookup, labels: LabelSet, reports: Sequence[SplitReport]) -> Table:
    """Return a table of mask values, classes and the pixel share of each class in each split."""
    number = partial(Column, justify="right", no_wrap=True)
    columns = Column("mask value", overflow="fold", max_width=48), number("id"), "class", Column("colour", no_wrap=True)
    table = Table(*columns, *(number(one.split) for one in reports), box=None, pad_edge=False, header_style="bold")
    meanings = class_meanings(lookup)
    for label, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        swatch = Text("██ ", style=f"rgb({','.join(map(str, color))})") + Text(" ".join(map(str, color)))
        shares = [f"{one.shares[label]:.2%}" if one.shares[label] else "never" for one in reports]
        table.add_row(Text(meanings.get(label, "–")), str(label), Text(name), swatch, *shares)  # Text has no markup
    if IGNORE in meanings:
        table.add_row(Text(meanings[IGNORE]), str(IGNORE), "ignored", "", *(f"{one.void:.2%}" for one in reports))
    return table
