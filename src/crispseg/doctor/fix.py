"""A corrected copy of data. Only what has one safe correction is corrected; what has none is left out and listed.

The copy is a folder of own data whatever the source was: images/SPLIT and masks/SPLIT, masks of class ids as palette
PNGs, classes.txt, and a list of names for each split. Images are copied byte for byte, except opaque RGBA, which
becomes RGB where three channels are wanted.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crispseg.data.base import SegmentationDataset
from crispseg.data.check import parallel
from crispseg.data.decoders import pack_colors
from crispseg.data.folder import folder_flags
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.pairs import needs_turning
from crispseg.doctor.report import left_out_lines
from crispseg.doctor.scan import Header, ImageFacts, MaskFacts, PairFacts, Unreadable, load_mask, readable
from crispseg.doctor.splits import duplicate_groups
from crispseg.doctor.values import STRAY, Reading
from crispseg.errors import CrispsegError
from crispseg.files import atomic_folder, check_new_folder
from crispseg.imaging import ORIENTATION, opened, write_labels
from crispseg.labels import IGNORE

LEFT_OUT = "left_out.txt"

SUFFIX = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}


@dataclass(frozen=True)
class Fixed:
    """What was written."""

    folder: Path
    splits: dict[str, int]
    """Pairs."""
    left_out: dict[str, str]
    """File → why."""

    def lines(self) -> list[str]:
        """A summary, and the flags to use it by."""
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        more = f", see {self.folder / LEFT_OUT}" if self.left_out else ""
        return [
            f"wrote {self.folder}: {counts} pairs; {len(self.left_out)} left out{more}",
            folder_flags(self.folder, [split for split in ("train", "val") if self.splits.get(split)]),
        ]


def check_out(out: Path, roots: Sequence[Path]) -> None:
    """Refuse a folder that holds something, or that lies in the data, below one of its roots.

    Raises:
        CrispsegError: it is one of these, or a file.
    """
    check_new_folder(out)
    for root in roots:
        if out.resolve().is_relative_to(root.resolve()):
            raise CrispsegError(f"--fix {out} lies in the data, {root}, where nothing is changed; give another folder")


def fix(diagnosis: Diagnosis, out: Path, workers: int | None = None) -> Fixed:
    """Write the corrected copy; it appears when it is complete.

    Raises:
        CrispsegError: `out` holds something or lies in the data, nothing could be kept, or the data are no files.
    """
    if any(isinstance(items, SegmentationDataset) for items in diagnosis.subject.splits.values()):
        raise CrispsegError(f"--fix copies files, but {diagnosis.subject.name} is not made of files; leave --fix out")
    check_out(out, sorted({path.parent for one in diagnosis.facts for path in (one.pair.image, one.pair.mask)}))
    reading = diagnosis.reading
    left_out, again = _left_out(diagnosis)
    kept = [
        one
        for one in readable(diagnosis.facts)
        if left_out.keys().isdisjoint((one[0].mask_file, one[0].image_file)) and id(one[0]) not in again
    ]
    if reading is None or not kept:
        raise CrispsegError(f"--fix {out}: there is no pair that can be kept; correct the data by hand")
    names: dict[str, list[str]] = defaultdict(list)
    for one, _, _ in kept:
        names[one.split].append(f"{one.split}/{one.pair.name}")
    channels = diagnosis.subject.channels
    with atomic_folder(out) as folder:
        list(parallel(lambda found: _write(*found, reading, folder, channels), kept, "Writing", workers))
        lists = {f"{split}.txt": sorted(entries) for split, entries in names.items()}
        lists["classes.txt"] = list(reading.labels.names)
        if left_out:
            lists[LEFT_OUT] = left_out_lines(left_out)
        for name, lines in lists.items():
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    return Fixed(out, {split: len(entries) for split, entries in names.items()}, left_out)


def _left_out(diagnosis: Diagnosis) -> tuple[dict[str, str], set[int]]:
    """Files that cannot be corrected safely, and why; their partners go with them.

    Also the `id` of pairs that stand in the data more than once, file by file, and stay elsewhere.
    """
    reasons: dict[str, str] = {}
    again: set[int] = set()

    def leave(one: PairFacts, stay: Sequence[PairFacts], code: str) -> None:
        again.add(id(one))
        if all(one.image_file != other.image_file for other in stay):
            reasons[one.image_file] = code

    for fault in diagnosis.subject.faults:
        if fault.kind != "listed-file-missing":
            reasons.update(dict.fromkeys(fault.files, fault.kind))
    for one in diagnosis.facts:
        for file, code in _faults(one, diagnosis.reading):
            reasons.setdefault(file, code)
        if any(0xD800 <= ord(letter) < 0xE000 for letter in one.pair.name):  # a byte that Python could not decode
            reasons.setdefault(one.image_file, "a name that is not UTF-8, as lists are")
    order = list(diagnosis.subject.splits)
    for group in duplicate_groups(diagnosis.facts):
        usable = [one for one in group if one.image_file not in reasons and one.mask_file not in reasons]
        last = max((order.index(one.split) for one in usable), default=0)
        stay = [one for one in usable if one.split == order[last]]
        for one in usable:
            if one.split != order[last]:
                leave(one, stay, "image-in-two-splits")
        if len({one.mask.digest for one in stay if isinstance(one.mask, MaskFacts)}) == 1:
            for one in stay[1:]:
                leave(one, stay[:1], "duplicate-image")
    return reasons, again


def _faults(one: PairFacts, reading: Reading | None) -> list[tuple[str, str]]:
    """The files of a pair that cannot be corrected safely, each with the code that says why."""
    image, mask, file = one.image, one.mask, one.mask_file
    broken = [(one.image_file, image.code)] if isinstance(image, Unreadable) else []
    if isinstance(image, Unreadable) or isinstance(mask, Unreadable):
        return broken + ([(file, mask.code)] if isinstance(mask, Unreadable) else [])
    if mask.header.lossy:
        return [(file, "lossy-mask")]
    if image.size != mask.size and not needs_turning(image, mask) and not needs_turning(mask, image):
        return [(file, "sizes-differ")]
    if reading is None:
        return []
    if file in reading.refused:
        return [(file, "rgb-masks")]
    decoded = reading.decode(mask)
    if decoded.stray(mask) > STRAY or mask.distinct > len(mask.values):
        return [(file, "unknown-color" if mask.colors else "value-out-of-range")]
    return [] if (decoded.labels != IGNORE).any() else [(file, "all-ignored")]


def _write(one: PairFacts, image: ImageFacts, mask: MaskFacts, reading: Reading, root: Path, channels: int) -> None:
    """Write one pair, for models of 3 or 4 channels. Threads may make a folder at the same time."""
    header = image.header
    target = root / "images" / one.split / (one.pair.name + _suffix(header))
    target.parent.mkdir(parents=True, exist_ok=True)
    if header.mode == "RGBA" and header.alpha == "opaque" and channels == 3:
        with opened(one.pair.image) as picture:
            upright = ImageOps.exif_transpose(picture)
            upright.convert("RGB").save(target.with_name(one.pair.name.rpartition("/")[2] + ".png"))
    else:
        shutil.copyfile(one.pair.image, target)
    labels = _labels(one.pair.mask, mask, reading)
    if needs_turning(image, mask):
        labels = _turned(labels, header.orientation)
    elif needs_turning(mask, image):
        labels = _turned(labels, {6: 8, 8: 6}.get(mask.header.orientation, mask.header.orientation))  # back
    write_labels(root / "masks" / one.split / f"{one.pair.name}.png", labels, reading.labels.palette)


def _suffix(header: Header) -> str:
    suffix = Path(header.file).suffix
    return suffix if header.suffix_fits else SUFFIX.get(header.kind, suffix)


def _labels(path: Path, mask: MaskFacts, reading: Reading) -> NDArray[np.uint8]:
    """The labels `(H, W)` of a mask; values of no class become 255."""
    values, known = load_mask(path)[1], mask.values
    if mask.colors:
        values, known = pack_colors(values), pack_colors(known)
    elif values.ndim == 3:
        values = values[..., 0]
    return reading.decode(mask).labels[np.searchsorted(known, values)]


def _turned(labels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(labels)
    picture.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))
