"""Checks of classes."""

from __future__ import annotations

import numpy as np

from crispseg.errors import few
from crispseg.folders.examined import Examined, if_clear
from crispseg.folders.finding import Finding, finding_of
from crispseg.folders.report import SplitReport
from crispseg.labels import IGNORE


def too_few_classes(data: Examined) -> Finding | None:
    """Training needs pixels of two classes, and scores need one."""
    poor = [report for report in data.reports if not enough_classes(report)]
    shown = [f"'{report.split}' has only {classes_in(report)}" for report in poor]
    return finding_of("too-few-classes", count=len(shown), contents=shown)


def enough_classes(report: SplitReport) -> bool:
    """Return whether a split can be used."""
    return int((report.counts > 0).sum()) >= (2 if report.split == "train" else 1)


def classes_in(report: SplitReport) -> str:
    """Return the classes in a split, and whether pixels are ignored."""
    contents = [f"class {index}" for index in np.flatnonzero(report.counts)]
    if report.ignored:
        contents.append(f"{IGNORE}, which means ignore")
    return " and ".join(contents) or "no pixels"


def class_absent(data: Examined) -> Finding | None:
    if not all(enough_classes(report) for report in data.reports):
        return None
    absent = {report.split: report.absent for report in data.reports if report.absent}
    shown = [f"never in {split}: {few(names, 20)}" for split, names in absent.items()]
    return finding_of("class-absent", count=len({*sum(absent.values(), ())}), lacking="; ".join(shown), absent=absent)


CLASS_CHECKS = [*map(if_clear, (too_few_classes, class_absent))]
