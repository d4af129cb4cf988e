"""A diagnosis as text to read and as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from crispseg.data.decoders import mapping
from crispseg.data.overview import class_table
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.kinds import KINDS, Finding, Severity, plural

FORMAT = 1
"""Of the JSON report."""

EXAMPLES = 3
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFORMATION: "cyan"}

EXIT_STATUS = {Severity.INFORMATION: 0, Severity.WARNING: 1, Severity.ERROR: 3}
"""Of the command, by the worst finding; 2 is for mistakes in the command itself."""


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything that was found, with all files."""
    return {
        "format": FORMAT,
        "data": diagnosis.subject.name,
        "severity": str(diagnosis.severity),
        "classes": list(diagnosis.reading.labels.names) if diagnosis.reading else [],
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
                "code": one.code,
                "severity": str(one.severity),
                "count": one.count,
                "message": one.message,
                "remedy": one.remedy,
                "fixable": bool(KINDS[one.code].fix),
                "files": list(one.files),
                "details": one.details,
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
    yield Text(f"{diagnosis.subject.name}: {pairs or 'no'} pairs")
    if diagnosis.reports and diagnosis.reading:
        yield class_table(mapping(diagnosis.reading.decoder, diagnosis.reading.labels), diagnosis.reports)
    for one in diagnosis.findings:
        yield Text()
        yield from _lines(one)
    yield Text()
    yield Text(conclusion(diagnosis), style=STYLES[diagnosis.severity] if diagnosis.findings else "green")


def conclusion(diagnosis: Diagnosis) -> str:
    """One line."""
    if not diagnosis.findings:
        return "Nothing to report."
    number = [
        plural(count, noun)
        for severity, noun in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"))
        if (count := sum(one.severity is severity for one in diagnosis.findings))
    ]
    if not number:
        return "Nothing is wrong; the rest is for your information."
    fixable = [one for one in diagnosis.findings if KINDS[one.code].fix and one.severity > Severity.INFORMATION]
    advice = f"; --fix OUT can do something about {len(fixable)} of them" if fixable else ""
    return " and ".join(number) + advice


def _lines(one: Finding) -> Iterator[Text]:
    yield Text.assemble((f"{one.severity}  ", STYLES[one.severity]), (one.code, "bold"), f"  {one.message}")
    if one.files:
        groups = one.details.get("groups")
        shown = [" = ".join(group) for group in groups[:EXAMPLES]] if groups else list(one.files[:EXAMPLES])
        more = (len(groups) if groups else len(one.files)) - len(shown)
        yield from (Text(f"    {line}", style="dim") for line in shown)
        if more:
            yield Text(f"    … and {more} more", style="dim")
    yield Text(f"    → {one.remedy}")


def left_out_lines(left_out: dict[str, str]) -> list[str]:
    """What a fix left out, one file a line."""
    return [f"{Path(file)}: {reason}" for file, reason in left_out.items()]
