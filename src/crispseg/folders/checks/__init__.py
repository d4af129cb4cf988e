"""Checks of data. Each is a function of what is known of a data set, and returns a finding or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from crispseg.folders.checks import classes, files, splits, values
from crispseg.folders.examined import Check, Examined
from crispseg.folders.finding import FINDING_KINDS, Finding

ALL_CHECKS: list[Check] = [*files.FILE_CHECKS, *values.VALUE_CHECKS, *classes.CLASS_CHECKS, *splits.SPLIT_CHECKS]


def check(data: Examined, checks: Iterable[Check] = ALL_CHECKS) -> list[Finding]:
    """Return the findings of all checks by severity, then in the order of `FINDING_KINDS`."""
    order = list(FINDING_KINDS)
    findings = [function(data) for function in checks]
    return sorted(filter(None, findings), key=lambda finding: (-finding.severity, order.index(finding.code)))
