"""Kinds of findings, and findings about pairs of files and about classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from crispseg.data.copies import natural
from crispseg.data.finding import Finding, Severity
from crispseg.data.folder_search import nearly_same
from crispseg.data.mask_lookup import MaskStatistics
from crispseg.data.split_check import SplitReport, too_few_classes
from crispseg.doctor.facts import PairScan, readable
from crispseg.errors import CrispsegError, few
from crispseg.folders.facts import ImageFacts
from crispseg.labels import LabelSet
from crispseg.models.info import MIN_SIDE


class FindingKind(NamedTuple):
    """A kind of finding."""

    severity: Severity
    message: str  # template for `str.format` with {count} and words; empty if the reading of masks has the message
    remedy: str
    fix: str  # correction in a copy; empty if there is none


_ROWS = csv.DictReader(resources.files("crispseg.doctor").joinpath("kinds.csv").read_text("utf-8").splitlines())
KINDS = {row.pop("code"): FindingKind(Severity[row.pop("severity").upper()], **row) for row in _ROWS}
"""Code → kind, in the order in which findings of one severity are listed."""


def finding(
    code: str,
    files: Iterable[object] = (),
    *,
    count: int | None = None,
    severity: Severity | None = None,
    details: Mapping[str, Any] | None = None,
    **words: object,
) -> Finding:
    """Return a finding of a kind in `KINDS`, by default with the severity of the kind.

    Args:
        words: words for the message template of the kind.
    """
    kind, names = KINDS[code], tuple(map(str, files))
    count = len(names) if count is None else count
    severity = kind.severity if severity is None else severity
    message = kind.message.format(count=count, **words)
    return Finding(code, severity, message, kind.remedy, count, names, details or {})


FEWEST = 8  # fewest masks that are reported as nearly the same
MANY = 0.1  # share of masks with interpolated edges above which they are suspicious; thin classes have some, too


def file_findings(facts: Sequence[PairScan]) -> Iterator[Finding]:
    """Yield findings about unusable or unusual files, and about images that do not match their masks."""
    files = {file: found for one in facts for file, found in ((one.pair.image, one.image), (one.pair.mask, one.mask))}
    reasons = {str(file): str(error) for file, error in files.items() if isinstance(error, CrispsegError)}
    yield finding("unusable-file", reasons, details={"reasons": reasons})
    # files in two splits count once
    images = [*{one.image.file: one.image for one in facts if isinstance(one.image, ImageFacts)}.values()]
    masks = {one.mask.file: one.mask for one in facts if isinstance(one.mask, MaskStatistics)}
    blended = (one for one in masks.values() if one.interpolated and not (one.colors and one.band))  # not by outlines
    soft = {mask.file: mask.blended for mask in blended}
    yield finding("constant-image", [one.file for one in images if one.constant])
    yield finding("tiny-image", [one.file for one in images if min(one.size) < MIN_SIDE], least=MIN_SIDE)
    severity = Severity.WARNING if len(soft) > MANY * len(masks) else Severity.INFORMATION
    yield finding("interpolated-edges", soft, severity=severity, highest=max(soft.values(), default=0))
    differ = {
        mask.file: "{}x{} but its image {}x{}".format(*mask.size, *image.size)
        for _, image, mask in readable(facts)
        if image.size != mask.size
    }
    yield finding("sizes-differ", differ, first=next(iter(differ.values()), ""))
    placed = [(image.place, mask.place, mask.file) for _, image, mask in readable(facts) if image.place and mask.place]
    apart = ((file, np.abs(np.subtract(one, other)).max() / max(map(abs, one[:2]))) for one, other, file in placed)
    yield from _not_labelled(facts)
    paths = [one.pair.mask for one in facts if isinstance(one.mask, MaskStatistics) and one.pair.mask.is_file()]
    yield finding("same-masks", paths if len(paths) >= FEWEST and nearly_same(paths) else ())
    yield finding("positions-differ", [file for file, pixels in apart if pixels > 0.01])
    turned = [image for _, image, mask in readable(facts) if image.orientation > 1 == mask.orientation]
    yield finding("turned-images", [one.file for one in turned if one.orientation < 5 or one.size[0] == one.size[1]])


RUN, RUN_SHARE, EARLIER = 5, 0.1, 0.95  # least number and share of empty masks at the end, and share of labelled ones


def _not_labelled(facts: Sequence[PairScan]) -> Iterator[Finding]:
    """Yield the finding of masks with only 0 at the end of a series of names."""
    by_pair = {one.pair: mask for one, _, mask in readable(facts)}
    pairs = sorted(by_pair, key=lambda pair: natural(pair.image))
    labelled = [bool(by_pair[pair].values.any()) for pair in pairs]
    start = len(labelled) - labelled[::-1].index(True) if True in labelled else 0
    last = pairs[start:]
    same = {re.sub(r"\d+", "", pair.image.name) for pair in pairs[max(start - 1, 0) :]}
    if len(last) >= max(RUN, RUN_SHARE * len(pairs)) and sum(labelled) >= EARLIER * start > 0 and len(same) == 1:
        masks = [pair.mask for pair in last]
        yield finding("not-labelled", masks, total=len(pairs), first=masks[0].name, last=masks[-1].name)


SIDED = 0.6  # minimum mean share of a class on one side minus that on the other for classes that mirroring exchanges


def class_findings(reports: Sequence[SplitReport]) -> list[Finding]:
    """Return findings about the classes of splits with one label set; the first report is the training split."""
    faults = filter(None, map(too_few_classes, reports))
    found = [finding("too-few-classes", count=1, reason=fault) for fault in faults]
    if found or not reports:
        return found
    first = reports[0]
    if lacking := {report.split: report.absent for report in reports if report.absent}:
        shown = "; ".join(f"never in {split}: {few(absent, 20)}" for split, absent in lacking.items())
        count, numbered = len(set().union(*lacking.values())), LabelSet.numbered(len(first.labels)).names
        if first.labels.names == numbered and first.absent[-1:] == numbered[-2:-1]:  # a gap before the last
            shown += f"; if {numbered[-1]} means unlabelled, give data.ignore '[{len(numbered) - 1}]'"
        found.append(finding("class-absent", count=count, details={"lacking": lacking}, shown=shown))
    left, right = int(first.sides.argmax()), int(first.sides.argmin())
    areas, names = sorted((first.shares[left], first.shares[right])), first.labels.names
    if first.sides[left] > SIDED and first.sides[right] < -SIDED and 2 * areas[0] > areas[1]:
        found.append(finding("mirrored-classes", count=2, left=names[left], right=names[right]))
    return found
