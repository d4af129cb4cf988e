"""Findings about the classes of whole splits, from their reports; training prints them too."""

from __future__ import annotations

from collections.abc import Sequence

from crispseg.data.mask_reading import Severity
from crispseg.data.pairing import few
from crispseg.data.split_check import SplitReport, too_few_classes
from crispseg.doctor.kinds import Finding, finding

RARE, VERY_RARE = 1e-2, 1e-4
"""Shares of the labelled pixels."""


def class_findings(reports: Sequence[SplitReport]) -> list[Finding]:
    """What looks odd about the classes of splits that share one label set; the first is the one to train on."""
    found: list[Finding] = []
    for report in reports:
        if fault := too_few_classes(report):
            code = "one-class-only" if report.counts.any() else "no-labels"
            reason, _, remedy = fault.partition("; ")
            found.append(finding(code, count=1, remedy=remedy, reason=reason))
        elif report.void > 0.5:
            found.append(finding("mostly-ignored", count=1, split=report.split, share=report.void))
    if not reports or any(one.severity is Severity.ERROR for one in found):
        return found
    first = reports[0]
    nowhere = [name for name in first.labels.names if all(name in report.absent for report in reports)]
    if nowhere:
        where = "any split" if len(reports) > 1 else first.split
        details = {"classes": nowhere}
        found.append(
            finding("class-never-occurs", count=len(nowhere), details=details, where=where, shown=few(nowhere, 20))
        )
    lacking = {report.split: [name for name in report.absent if name not in nowhere] for report in reports}
    if any(lacking.values()):
        shown = "; ".join(f"never in {split}: {few(absent, 20)}" for split, absent in lacking.items() if absent)
        count = len(set().union(*lacking.values()))
        found.append(finding("class-in-one-split", count=count, details={"lacking": lacking}, shown=shown))
    named = sorted(zip(first.shares, first.labels.names, strict=True))
    if rare := {name: share for share, name in named if 0 < share < RARE}:
        severity = Severity.WARNING if min(rare.values()) < VERY_RARE else Severity.INFORMATION
        shown = few((f"{name} {100 * share:.2g} %" for name, share in rare.items()), 5)
        words = {"split": first.split, "shown": shown}
        found.append(finding("class-imbalance", count=len(rare), severity=severity, details={"shares": rare}, **words))
    return found
