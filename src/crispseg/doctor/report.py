"""A diagnosis as text to read and as plain numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from crispseg.config.settings import plural
from crispseg.data.catalogue import class_meanings, class_table
from crispseg.data.mask_reading import Severity
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.findings import KINDS, Finding

FORMAT = 1
"""Version of the JSON report."""

EXAMPLES = 3
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFORMATION: "cyan"}

EXIT_STATUS = {Severity.INFORMATION: 0, Severity.WARNING: 1, Severity.ERROR: 3}
"""Exit status of the command by the worst finding; 2 is for mistakes in the command itself."""


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything that was found, with all files."""
    return {
        "format": FORMAT,
        "data": diagnosis.subject.source.name,
        "severity": str(diagnosis.severity),
        "classes": list(diagnosis.reading.best.labels.names) if diagnosis.reading else [],
        "splits": {split: {"pairs": len(items)} for split, items in diagnosis.subject.splits.items()}
        | {
            report.split: {
                "pairs": len(diagnosis.subject.splits[report.split]),
                "readable": report.images,
                "pixels": report.counts.tolist(),
                "ignored": report.ignored,
                "smallest": list(report.smallest),
                "largest": list(report.largest),
            }
            for report in diagnosis.reports
        },
        "findings": [
            {
                **vars(one),
                "details": dict(one.details),
                "severity": str(one.severity),
                "fixable": bool(KINDS[one.code].fix),
            }
            for one in diagnosis.findings
        ],
    }


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print the splits, the classes and the findings; nothing in it is wrapped, so that flags can be pasted."""
    for part in _parts(diagnosis):
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, Text))


def _parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    pairs = ", ".join(f"{split} {len(items)}" for split, items in diagnosis.subject.splits.items())
    yield Text(f"{diagnosis.subject.source.name}: {pairs or 'no'} pairs")
    if diagnosis.reports and diagnosis.reading:
        best = diagnosis.reading.best
        yield class_table(class_meanings(best.lookup, best.labels), diagnosis.reports)
    for one in diagnosis.findings:
        yield Text()
        yield from _lines(one)
    yield Text()
    yield Text(conclusion(diagnosis.findings), style=STYLES[diagnosis.severity] if diagnosis.findings else "green")


def conclusion(findings: Sequence[Finding]) -> str:
    """One line."""
    if not findings:
        return "Nothing to report."
    grave = [one for one in findings if one.severity > Severity.INFORMATION]
    if not grave:
        return "Nothing is wrong; the rest is for your information."
    counts = Counter(str(one.severity) for one in grave)  # errors come first
    fixable = sum(bool(KINDS[one.code].fix) for one in grave)
    advice = f"; a corrected copy has none of {fixable} of them" if fixable else ""
    return " and ".join(plural(count, noun) for noun, count in counts.items()) + advice


def _lines(one: Finding) -> Iterator[Text]:
    yield Text.assemble((f"{one.severity}  ", STYLES[one.severity]), (one.code, "bold"), f"  {one.message}")
    examples = [" = ".join(group) for group in one.details.get("groups", ())] or one.files
    yield from (Text(f"    {line}", style="dim") for line in examples[:EXAMPLES])
    if len(examples) > EXAMPLES:
        yield Text(f"    … and {len(examples) - EXAMPLES} more", style="dim")
    yield Text(f"    → {one.remedy}")
