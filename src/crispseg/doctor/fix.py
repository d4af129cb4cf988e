"""A corrected copy of data. Only what has one safe correction is corrected; what has none is left out and listed.

The copy is a folder of own data whatever the source was: images/SPLIT and masks/SPLIT, masks of class ids as palette
PNGs, classes.txt, and a list of names for each split. Images are copied byte for byte.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from crispseg.data.dataset import SegmentationDataset
from crispseg.data.loading import parallel
from crispseg.data.mask_lookup import NONE, ColorLookup
from crispseg.data.mask_reading import MaskReading
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.facts import PairFacts, Subject, readable
from crispseg.doctor.findings import KINDS, duplicate_groups, mask_digests
from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_folder, check_new_folder
from crispseg.io.images import read_mask, write_labels
from crispseg.labels import IGNORE

LEFT_OUT = "left_out.txt"

STRAY = 0.01
"""So large a share of a mask may have values of no class for the rest of it to be worth keeping."""


def check_out(out: Path, subject: Subject) -> None:
    """Refuse a folder that holds something, or that lies in the data.

    Raises:
        CrispsegError: it is one of these, or a file; or the data are no files.
    """
    check_new_folder(out)
    if any(isinstance(pairs, SegmentationDataset) for pairs in subject.splits.values()):
        raise CrispsegError(f"{subject.source.name} has no files of masks of classes; correct the data by hand")
    for root in (getattr(subject.source, key, None) for key in ("root", "images", "masks")):
        if root is not None and out.resolve().is_relative_to(Path(root).resolve()):
            raise CrispsegError(f"{out} lies in the data, {root}, where nothing is changed; give another folder")


def fix(diagnosis: Diagnosis, out: Path) -> str:
    """Write the corrected copy; it appears when it is complete.

    Returns:
        A summary in a line.

    Raises:
        CrispsegError: `out` holds something or lies in the data, nothing could be kept, or the data are no files.
    """
    check_out(out, diagnosis.subject)
    reading = diagnosis.reading and diagnosis.reading.best
    left_out = _left_out(diagnosis)
    kept = _once(diagnosis, left_out)
    if reading is None or not kept:
        raise CrispsegError(f"{out}: there is no pair that can be kept; correct the data by hand")
    names: dict[str, list[str]] = defaultdict(list)
    for one in kept:
        names[one.split].append(f"{one.split}/{one.pair.name}")
    with atomic_folder(out) as folder:
        list(parallel(lambda one: _write(one, reading, folder), kept, "Writing"))
        lists = {f"{split}.txt": sorted(entries) for split, entries in names.items()}
        lists["classes.txt"] = list(reading.labels.names)
        if left_out:
            lists[LEFT_OUT] = [f"{file}: {reason}" for file, reason in left_out.items()]
        for name, lines in lists.items():
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = ", ".join(f"{split} {len(entries)}" for split, entries in names.items())
    more = f", see {out / LEFT_OUT}" if left_out else ""
    return f"wrote {out}: {counts} pairs; {len(left_out)} left out{more}"


def _left_out(diagnosis: Diagnosis) -> dict[str, str]:
    """Files that cannot be corrected safely, and why; their partners go with them."""
    reasons: dict[str, str] = {}
    for one in diagnosis.findings:
        if KINDS[one.code].left_out and one.code != "listed-file-missing":  # which nobody could copy
            reasons = dict.fromkeys(one.files, one.code) | reasons
    reading = diagnosis.reading and diagnosis.reading.best
    for pair, _, mask in readable(diagnosis.facts):
        if reading is not None:
            labels = reading.lookup.labels_of(mask)
            stray = mask.counts[labels == NONE].sum() / mask.counts.sum()
            if stray > STRAY or mask.distinct > len(mask.values) or (labels >= IGNORE).all():
                known = isinstance(reading.lookup, ColorLookup)
                code = "unknown-color" if known else "rgb-masks" if mask.colors else "value-out-of-range"
                reasons.setdefault(pair.mask_file, code)
    return reasons


def _once(diagnosis: Diagnosis, left_out: dict[str, str]) -> list[PairFacts]:
    """The pairs to be copied: of equal images those of the last split, and one of them where their masks agree.

    The others are added to `left_out`, unless it is the same file that another pair keeps.
    """
    files = left_out.keys()
    usable = [one for one, _, _ in readable(diagnosis.facts) if files.isdisjoint((one.mask_file, one.image_file))]
    order = list(diagnosis.subject.splits)
    again: set[int] = set()
    for group in duplicate_groups(usable):
        last = max((one.split for one in group), key=order.index)
        stay = [one for one in group if one.split == last]
        if len(mask_digests(stay)) == 1:
            stay = stay[:1]
        again |= {id(one) for one in group} - {id(one) for one in stay}
        for one in group:
            if one.image_file not in {other.image_file for other in stay}:
                left_out[one.image_file] = "duplicate-image" if one.split == last else "image-in-two-splits"
    return [one for one in usable if id(one) not in again]


def _write(one: PairFacts, reading: MaskReading, root: Path) -> None:
    image = root / "images" / one.split / (one.pair.name + one.pair.image.suffix)
    image.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(one.pair.image, image)
    # values of no class become 255
    ids = np.minimum(reading.lookup.find(read_mask(one.pair.mask)), IGNORE).astype(np.uint8)
    write_labels(root / "masks" / one.split / f"{one.pair.name}.png", ids, reading.labels.palette)
