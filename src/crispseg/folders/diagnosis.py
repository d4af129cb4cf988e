"""Findings about a data set as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from crispseg.config.settings import plural
from crispseg.folders.examined import Examined
from crispseg.folders.finding import FINDING_KINDS, Finding, Severity
from crispseg.folders.report import table_lines
from crispseg.folders.wording import message, remedy

MOST_EXAMPLES = 3  # files or groups of a finding that are printed


def worst(findings: Sequence[Finding]) -> Severity:
    """Return the severity of the worst finding; information if there are none."""
    return max((finding.severity for finding in findings), default=Severity.INFORMATION)


def as_json(name: str, data: Examined, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return all findings with all files, and the statistics of each split of the data source `name`."""
    splits: dict[str, dict[str, Any]] = {split: {"pairs": count} for split, count in data.sizes.items()}
    for report in data.reports:
        sizes = {"smallest": report.smallest, "largest": report.largest}
        splits[report.split] |= {"pixels": report.counts.tolist(), "ignored": report.ignored, **sizes}
    return {
        "format": 2,
        "data": name,
        "severity": str(worst(findings)),
        "classes": list(data.meaning.labels.names) if data.meaning else [],
        "splits": splits,
        "findings": [finding_as_json(finding) for finding in findings],
    }


def finding_as_json(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "message": message(finding),
        "remedy": remedy(finding),
        "count": finding.count,
        "files": list(finding.files),
        "values": dict(finding.values),
        "settings": list(finding.settings),
        "fix": FINDING_KINDS[finding.code].fix,
    }


def overview(name: str, data: Examined) -> Iterator[str]:
    """Yield the sizes of the splits and the table of classes, as lines."""
    pairs = ", ".join(f"{split} {count}" for split, count in data.sizes.items())
    yield f"{name}: {pairs or 'no'} pairs"
    if data.meaning and data.reports:
        yield from table_lines(data.meaning, data.reports)


def finding_lines(finding: Finding) -> list[str]:
    """Return a finding as a title, and lines of examples and a remedy."""
    title = f"{finding.severity}  {finding.code}  {message(finding)}"
    return [title, *(f"    {example}" for example in examples_of(finding)), f"    → {remedy(finding)}"]


def count_line(findings: Sequence[Finding]) -> str:
    """Return the numbers of warnings and errors as a line."""
    counts = Counter(str(finding.severity) for finding in findings if finding.severity > Severity.INFORMATION)
    return " and ".join(plural(count, severity) for severity, count in counts.items()) or "No errors or warnings."


def examples_of(finding: Finding) -> list[str]:
    """Return the first groups, reasons or files of a finding, and the number of the others."""
    groups = [" = ".join(group) for group in finding.values.get("groups", ())]
    examples = groups or [*finding.values.get("reasons", {}).values()] or [*finding.files]
    shown = examples[:MOST_EXAMPLES]
    return shown if shown == examples else [*shown, f"… and {len(examples) - len(shown)} more"]
