"""Findings about the classes of whole splits, from their reports; training prints them too."""

from __future__ import annotations

from collections.abc import Sequence

from crispseg.data.check import SplitReport, too_few_classes
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
        elif report.ignored > report.counts.sum():
            share = report.ignored / (report.ignored + report.counts.sum())
            found.append(finding("mostly-ignored", f"{report.split}: {share:.0%} of the pixels are ignored", count=1))
    if not reports or any(one.code in ("no-labels", "one-class-only") for one in found):
        return found
    names = reports[0].labels.names
    nowhere = [name for name in names if all(name in report.absent for report in reports)]
    if nowhere:
        listed = _few(nowhere)
        found.append(
            finding(
                "class-never-occurs",
                f"never in any split: {listed}" if len(reports) > 1 else f"never in {reports[0].split}: {listed}",
                count=len(nowhere),
                classes=nowhere,
            )
        )
    lacking = {report.split: [name for name in report.absent if name not in nowhere] for report in reports}
    if any(lacking.values()):
        parts = [f"never in {split}: {_few(absent)}" for split, absent in lacking.items() if absent]
        found.append(
            finding(
                "class-in-one-split",
                "; ".join(parts),
                count=len(set().union(*lacking.values())),
                lacking=lacking,
            )
        )
    found += _imbalance(reports[0])
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _imbalance(report: SplitReport) -> list[Finding]:
    shares = report.counts / max(int(report.counts.sum()), 1)
    rare = {name: float(share) for name, share in zip(report.labels.names, shares, strict=True) if 0 < share < RARE}
    if not rare:
        return []
    rarest = sorted(rare, key=rare.__getitem__)
    shown = ", ".join(f"{name} {100 * rare[name]:.2g} %" for name in rarest[:5])
    more = f" and {len(rarest) - 5} more" if len(rarest) > 5 else ""
    severity = Severity.WARNING if rare[rarest[0]] < VERY_RARE else Severity.INFORMATION
    who = "1 class has" if len(rare) == 1 else f"{len(rare)} classes have"
    message = f"{who} less than 1 % of the labelled pixels of {report.split}; shares: {shown}{more}"
    return [finding("class-imbalance", message, count=len(rare), severity=severity, shares=rare)]
