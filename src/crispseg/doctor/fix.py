"""Corrected copies of data. Files with one safe correction are corrected; others are left out and listed.

The copy is always a folder of custom data, with images/SPLIT, masks/SPLIT and classes.txt. Masks are palette PNGs of
class ids, and images are copied byte for byte.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from crispseg.data.dataset import SegmentationDataset
from crispseg.data.finding import Finding, Severity
from crispseg.data.mask_lookup import NONE
from crispseg.data.mask_reading import MaskReading
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.facts import PairScan, Subject, readable
from crispseg.doctor.findings import KINDS
from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_folder, check_new_folder
from crispseg.io.images import write_labels
from crispseg.io.parallel import parallel
from crispseg.labels import IGNORE

LEFT_OUT = "left_out.txt"
STRAY = 0.01  # largest share of values without a class in a mask that is kept


def check_out(out: Path, subject: Subject) -> None:
    """Raise a `CrispsegError` if a folder is not empty or is inside the data, or if the data are not files."""
    check_new_folder(out)
    if any(isinstance(pairs, SegmentationDataset) for pairs in subject.splits.values()):
        raise CrispsegError(f"{subject.source.name} has no files of class masks; correct the data by hand")
    for root in (getattr(subject.source, key, None) for key in ("root", "images", "masks")):
        if root is not None and out.resolve().is_relative_to(Path(root).resolve()):
            raise CrispsegError(f"{out} is inside the data, {root}, which are never changed; give another folder")


def worth_a_copy(diagnosis: Diagnosis) -> bool:
    """Return whether `fix` can write a copy in which a warning or an error is corrected."""
    found = any(KINDS[one.code].fix and one.severity > Severity.INFORMATION for one in diagnosis.findings)
    files = not any(isinstance(pairs, SegmentationDataset) for pairs in diagnosis.subject.splits.values())
    return not _unsure(diagnosis) and found and files and bool(_kept(diagnosis)[0])


def fix(diagnosis: Diagnosis, out: Path) -> str:
    """Write the corrected copy, which is created only when it is complete, and return a summary in one line.

    It raises the errors of `check_out`, and a `CrispsegError` if no pair can be kept.
    """
    check_out(out, diagnosis.subject)
    if unsure := _unsure(diagnosis):
        raise CrispsegError(f"{out} is not written: {unsure[0].line}")
    reading, (kept, left_out) = diagnosis.reading, _kept(diagnosis)
    if reading is None or not kept:
        raise CrispsegError(f"{out}: there is no pair that can be kept; correct the data by hand")
    with atomic_folder(out) as folder:
        list(parallel(lambda one: _write(one, reading, folder), kept, "Writing"))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in reading.labels.names), "utf-8")
        if left_out:
            (folder / LEFT_OUT).write_text("".join(f"{file}: {why}\n" for file, why in left_out.items()), "utf-8")
    counts = ", ".join(f"{split} {count}" for split, count in Counter(one.split for one in kept).items())
    return f"wrote {out}: {counts} pairs; {len(left_out)} left out" + f", see {out / LEFT_OUT}" * bool(left_out)


def _unsure(diagnosis: Diagnosis) -> list[Finding]:
    """Return the errors of which a copy would lose or mix classes, or make classes of objects."""
    return [one for one in diagnosis.findings if not one.details.get("copy", True)]


def _kept(diagnosis: Diagnosis) -> tuple[list[PairScan], dict[str, str]]:
    """Return the pairs to copy, one of each group of equal images, and the reasons why other files are left out."""
    reasons: dict[str, str] = {}
    for found in diagnosis.findings:
        if KINDS[found.code].fix == "leaves the pair out" and found.code != "listed-file-missing":  # nothing to copy
            reasons = dict.fromkeys(found.files, found.code) | reasons
    for _, _, mask in readable(diagnosis.facts):
        assert diagnosis.reading
        lookup = diagnosis.reading.lookup
        labels = lookup.labels_of(mask)
        stray = mask.counts[labels == NONE].sum() / mask.counts.sum()
        many = mask.distinct > len(mask.values) and not lookup.tolerance
        if stray > STRAY or many or (labels >= IGNORE).all():
            reasons.setdefault(mask.file, "unknown-color" if lookup.colors else "value-out-of-range")
    order = list(diagnosis.subject.splits)
    kept: dict[bytes | str, PairScan] = {}
    for one, image, mask in sorted(readable(diagnosis.facts), key=lambda each: -order.index(each[0].split)):
        if reasons.keys().isdisjoint((image.file, mask.file)):
            first = kept.setdefault(image.file if image.constant else image.digest, one)
            if first.pair.image != one.pair.image:
                reasons[image.file] = "duplicate-image" if first.split == one.split else "image-in-two-splits"
    return [*kept.values()], reasons


def _write(one: PairScan, reading: MaskReading, root: Path) -> None:
    image = root / "images" / one.split / (one.pair.name + one.pair.image.suffix)
    image.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(one.pair.image, image)
    found = reading.lookup.find(reading.lookup.read(one.pair.mask, lossy=True))
    ids = np.minimum(found, IGNORE).astype(np.uint8)  # values of no class become 255
    write_labels(root / "masks" / one.split / f"{one.pair.name}.png", ids, reading.labels.palette)
