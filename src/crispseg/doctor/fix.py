"""A corrected copy of data. Only what has one safe correction is corrected; what has none is left out and listed.

The copy is a folder of own data whatever the source was: images/SPLIT and masks/SPLIT, masks of class ids as palette
PNGs, classes.txt, and a list of names for each split. Images are copied byte for byte, except opaque RGBA, which
becomes RGB where three channels are wanted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crispseg.data.check import parallel
from crispseg.doctor.diagnosis import Diagnosis
from crispseg.doctor.facts import Header, ImageFacts, MaskFacts, PairFacts, Unreadable
from crispseg.doctor.pairs import needs_no_turning, needs_turning
from crispseg.doctor.report import left_out_lines
from crispseg.doctor.splits import duplicate_groups
from crispseg.doctor.values import STRAY, Reading
from crispseg.errors import CrispsegError
from crispseg.files import writable_folder
from crispseg.imaging import mask_values, opened, stretch_of, write_labels
from crispseg.labels import IGNORE

LEFT_OUT = "left_out.txt"

SUFFIX = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}

_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What upright means for the EXIF orientations that swap the sides."""

_BACK = {5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another one."""


@dataclass(frozen=True)
class Fixed:
    """What was written."""

    folder: Path
    splits: dict[str, int]
    """Pairs."""
    left_out: dict[str, str]
    """File → why."""

    def lines(self) -> list[str]:
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        lists = " ".join(
            f"--data.{split}_list {self.folder / split}.txt" for split in ("train", "val") if self.splits.get(split)
        )
        return [
            f"wrote {self.folder}: {counts} pairs; {len(self.left_out)} left out"
            + (f", see {self.folder / LEFT_OUT}" if self.left_out else ""),
            f"--data folder --data.images {self.folder / 'images'} --data.masks {self.folder / 'masks'} "
            f"--data.classes {self.folder / 'classes.txt'} {lists}",
        ]


def check_out(out: Path, diagnosis_roots: Sequence[Path]) -> None:
    """Refuse a folder that holds something, or that lies in the data.

    Raises:
        CrispsegError: it is one of these, or a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise CrispsegError(f"--fix {out}: it {what}; give a new folder")
    if out.is_symlink() and not out.exists():
        raise CrispsegError(f"--fix {out} is a link that leads nowhere; give a new folder")
    for root in diagnosis_roots:
        if out.resolve().is_relative_to(root.resolve()):
            raise CrispsegError(f"--fix {out} lies in the data, {root}, where nothing is changed; give another folder")


def roots_of(diagnosis: Diagnosis) -> list[Path]:
    """The folders of the data's files."""
    files = [path for one in diagnosis.facts for path in (one.pair.image, one.pair.mask)]
    return sorted({path.parent for path in files})


def fix(diagnosis: Diagnosis, out: Path, workers: int | None = None) -> Fixed:
    """Write the corrected copy; it appears when it is complete.

    Raises:
        CrispsegError: `out` holds something or lies in the data, nothing could be kept, or the data are no files.
    """
    if any(not isinstance(split.items, tuple) for split in diagnosis.subject.splits):
        raise CrispsegError(f"--fix copies files, but {diagnosis.subject.name} is not made of files; leave --fix out")
    check_out(out, roots_of(diagnosis))
    reading = diagnosis.reading
    left_out, again = _left_out(diagnosis)
    kept = [
        one
        for one in diagnosis.facts
        if one.mask_file not in left_out and one.image_file not in left_out and id(one) not in again
    ]
    if reading is None or not kept:
        raise CrispsegError(f"--fix {out}: there is no pair that can be kept; correct the data by hand")
    beside = out if out.exists() else out.parent  # an empty folder stays: it may be a link, or where a disk is mounted
    writable_folder(beside)
    temporary = Path(tempfile.mkdtemp(dir=beside, prefix=f".{out.name}-"))
    channels = diagnosis.subject.channels
    try:
        for _ in parallel(lambda one: _write(one, reading, temporary, channels), kept, "Writing", workers):
            pass
        names: dict[str, list[str]] = defaultdict(list)
        for one in kept:
            names[one.split].append(f"{one.split}/{one.pair.name}")
        for split, entries in names.items():
            (temporary / f"{split}.txt").write_text("\n".join(sorted(entries)) + "\n", encoding="utf-8")
        (temporary / "classes.txt").write_text("\n".join(reading.labels.names) + "\n", encoding="utf-8")
        if left_out:
            lines = "\n".join(left_out_lines(left_out)) + "\n"
            (temporary / LEFT_OUT).write_text(lines, encoding="utf-8", errors="surrogateescape")
        temporary.chmod(0o755)
        if beside == out:
            for entry in temporary.iterdir():
                entry.replace(out / entry.name)
            temporary.rmdir()
        else:
            temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
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
        if not _is_utf8(one.pair.name):
            reasons.setdefault(one.image_file, "a name that is not UTF-8, as lists are")
    latest = {split.name: index for index, split in enumerate(diagnosis.subject.splits)}
    for group in duplicate_groups(diagnosis.facts):
        usable = [one for one in group if one.image_file not in reasons and one.mask_file not in reasons]
        last = max((latest[one.split] for one in usable), default=0)
        stay = [one for one in usable if latest[one.split] == last]
        for one in usable:
            if latest[one.split] != last:
                leave(one, stay, "image-in-two-splits")
        masks = {one.mask.digest for one in stay if isinstance(one.mask, MaskFacts)}
        if len(masks) == 1:
            for one in stay[1:]:
                leave(one, stay[:1], "duplicate-image")
    return reasons, again


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _faults(one: PairFacts, reading: Reading | None) -> list[tuple[str, str]]:
    found = []
    for file, facts in ((one.image_file, one.image), (one.mask_file, one.mask)):
        if isinstance(facts, Unreadable):
            found.append((file, facts.code))
    if found or not isinstance(one.image, ImageFacts) or not isinstance(one.mask, MaskFacts):
        return found
    if one.mask.header.lossy:
        return [(one.mask_file, "lossy-mask")]
    if one.image.size != one.mask.size and not needs_turning(one) and not needs_no_turning(one):
        return [(one.mask_file, "sizes-differ")]
    if reading is None:
        return found
    decoded = reading.decode(one.split, one.mask)
    if one.mask_file in reading.refused:
        return [(one.mask_file, "rgb-masks")]
    if decoded.stray(one.mask) > STRAY or one.mask.distinct > len(one.mask.values):
        return [(one.mask_file, "unknown-color" if one.mask.colors else "value-out-of-range")]
    if not (decoded.labels != IGNORE).any():
        return [(one.mask_file, "all-ignored")]
    return found


def _write(one: PairFacts, reading: Reading, root: Path, channels: int) -> None:
    """Write one pair, for models of 3 or 4 channels. Threads may make a folder at the same time."""
    assert isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts)
    header = one.image.header
    image = root / "images" / one.split / (one.pair.name + _suffix(header))
    mask = root / "masks" / one.split / f"{one.pair.name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    if header.mode == "RGBA" and header.alpha == "opaque" and channels == 3:
        image = image.with_name(one.pair.name.rpartition("/")[2] + ".png")
        with opened(one.pair.image) as picture:
            upright = ImageOps.exif_transpose(picture)
            upright.convert("RGB").save(image)
    else:
        shutil.copyfile(one.pair.image, image)
    write_labels(mask, _labels(one, reading), reading.labels.palette)


def _suffix(header: Header) -> str:
    suffix = Path(header.file).suffix
    return suffix if header.suffix_fits else SUFFIX.get(header.kind, suffix)


def _labels(one: PairFacts, reading: Reading) -> NDArray[np.uint8]:
    """The labels of a mask, turned so that they fit the image."""
    assert isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts)
    path = one.pair.mask
    with opened(path) as picture:
        stretch = stretch_of(picture)
        ImageOps.exif_transpose(picture, in_place=True)
        values = mask_values(picture, path, stretch)
    decoded = reading.decode(one.split, one.mask)
    if one.mask.colors:
        powers = np.array([1 << 16, 1 << 8, 1], np.uint32)
        values, known = values.astype(np.uint32) @ powers, one.mask.values.astype(np.uint32) @ powers
    else:
        values, known = values if values.ndim == 2 else values[..., 0], one.mask.values
    labels = decoded.labels[np.searchsorted(known, values)]
    if needs_turning(one):
        labels = np.asarray(Image.fromarray(labels).transpose(_TURNS[one.image.header.orientation]))
    elif needs_no_turning(one):  # turned back
        labels = np.asarray(Image.fromarray(labels).transpose(_TURNS[_BACK[one.mask.header.orientation]]))
    return labels
