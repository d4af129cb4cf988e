"""Findings about the classes of whole splits, from their reports; training prints them too."""

from __future__ import annotations

from collections.abc import Sequence

from crispseg.data.check import SplitReport, too_few_classes
from crispseg.data.pairing import few
from crispseg.doctor.kinds import Finding, Severity, finding

RARE, VERY_RARE = 1e-2, 1e-4
"""Shares of the labelled pixels."""


def class_findings(reports: Sequence[SplitReport]) -> list[Finding]:
    """What looks odd about the classes of splits that share one label set; the first is the one to train on."""
    found: list[Finding] = []
    for report in reports:
        if fault := too_few_classes(report):
            code = "one-class-only" if report.counts.any() else "no-labels"
            message, _, remedy = fault.partition("; ")
            found.append(finding(code, message, count=1, remedy=remedy))
        elif report.void > 0.5:
            found.append(
                finding("mostly-ignored", f"{report.split}: {report.void:.0%} of the pixels are ignored", count=1)
            )
    if not reports or any(one.severity is Severity.ERROR for one in found):
        return found
    nowhere = [name for name in reports[0].labels.names if all(name in report.absent for report in reports)]
    if nowhere:
        where = "any split" if len(reports) > 1 else reports[0].split
        message = f"never in {where}: {few(nowhere, 20)}"
        found.append(finding("class-never-occurs", message, count=len(nowhere), classes=nowhere))
    lacking = {report.split: [name for name in report.absent if name not in nowhere] for report in reports}
    if any(lacking.values()):
        message = "; ".join(f"never in {split}: {few(absent, 20)}" for split, absent in lacking.items() if absent)
        count = len(set().union(*lacking.values()))
        found.append(finding("class-in-one-split", message, count=count, lacking=lacking))
    return [*found, *_imbalance(reports[0])]


def _imbalance(report: SplitReport) -> list[Finding]:
    named = sorted(zip(report.shares, report.labels.names, strict=True))
    rare = {name: share for share, name in named if 0 < share < RARE}
    if not rare:
        return []
    shown = few((f"{name} {100 * share:.2g} %" for name, share in rare.items()), 5)
    severity = Severity.WARNING if min(rare.values()) < VERY_RARE else Severity.INFORMATION
    who = "1 class has" if len(rare) == 1 else f"{len(rare)} classes have"
    message = f"{who} less than 1 % of the labelled pixels of {report.split}; shares: {shown}"
    return [finding("class-imbalance", message, count=len(rare), severity=severity, shares=rare)]
