"""Which folders below a folder hold pictures, and which of these may be images and their masks."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crispseg.data.pairing import few, match_files, pictures
from crispseg.errors import CrispsegError
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES, read_image

MASK_FOLDERS = (
    *("masks", "mask", "segmentationclass", "labels", "label", "ann_dir", "annotations", "annotation", "annots"),
    *("annot", "gt", "lbl", "segmentations", "lab", "groundtruth", "ground_truth", "segmentation"),
)
"""Usual names of folders of masks, in lower case."""
SPLITS = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "dev", "val2017"),
    "test": ("test", "testing", "test2017"),
}
"""Names of the folders of each split, those of COCO among them."""
OTHERS = re.compile(r"instance|object|predict|overlay", re.IGNORECASE)
"""In names of folders that hold no masks of classes, though their files are called as the images are."""
LEVELS, MOST = 4, 1000
"""How deep, and at how many folders is looked: it may be anything, such as one's home."""


class Place(NamedTuple):
    """A folder of pictures, or several by a pattern."""

    path: Path
    files: Mapping[Path, str]
    usual: bool
    """Whether its name says what it holds."""
    masks: bool
    """Whether it holds masks, by its name or else as eight colours have most of its first picture."""


Reading = tuple[Place, Place]
"""Images and masks that pair."""


def found_files(root: Path) -> dict[Path, Counter[str]]:
    """The folders, `root` and below, that hold pictures or text files, with how many of each suffix."""
    found = {}
    for place, folders, files in itertools.islice(os.walk(root, followlinks=True), MOST):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if depth < LEVELS and name[0] != ".")
        counts = Counter(Path(name).suffix.lower() for name in files if name[0] != ".")
        if shown := Counter({key: counts[key] for key in (*sorted(SUFFIXES), ".txt", ".json", ".xml") if counts[key]}):
            found[Path(place)] = shown
    return found


def described(root: Path) -> str:
    """What `found_files` finds, such as "dataset1/rgb: 22 png, dataset1/label: 22 png"."""
    lines = []
    for folder, counts in found_files(root).items():
        files = " and ".join(f"{count} {suffix[1:]}" for suffix, count in counts.items())
        lines.append(f"{folder.relative_to(root)}: {files}")
    return few(lines, 12)


def readings(root: Path) -> list[Reading]:
    """The images and masks below `root` that pair, the likeliest first.

    Folders of one name at one depth, such as dataset1/rgb and dataset2/rgb, are taken together if these pair at all.
    """
    alike: dict[Path, dict[Path, None]] = defaultdict(dict)
    usual = {name for names in SPLITS.values() for name in names}
    for folder, counts in found_files(root).items():
        folder = folder.parent if folder.name.lower() in usual and folder != root else folder
        if SUFFIXES & counts.keys() and (parts := folder.relative_to(root).parts) and not OTHERS.search(folder.name):
            alike[Path(glob.escape(str(root)), *["*"] * (len(parts) - 1), glob.escape(parts[-1]))][folder] = None
    together = [pattern if len(folders) > 1 else next(iter(folders)) for pattern, folders in alike.items()]
    return _pairing(together) or _pairing(itertools.chain(*alike.values()))


def single_classes(images: Place, masks: Place) -> list[str]:
    """The folders next to these masks, and theirs, if each has masks of one class, called as images are and a word."""
    folders = found_files(masks.path.parent) if masks.path.is_dir() else {}
    names = {*images.files.values()}
    found = [one for one in folders if {name.rpartition("_")[0] for name in pictures(one).values()} <= names]
    return [one.name for one in found if one != images.path] if masks.path in found and len(found) > 1 else []


def settings(found: Sequence[Reading]) -> list[dict[str, str]]:
    """What chooses one of the readings, the likeliest ones."""
    return [{"data.images": str(images.path), "data.masks": str(masks.path)} for images, masks in found[:4]]


def _pairing(paths: Iterable[Path]) -> list[Reading]:
    places = list(map(_place, paths))
    found = []
    for one, other in itertools.product(places, places):
        if other.masks and not one.masks:
            matched = match_files(one.files, other.files, one.path, other.path)
            enough = 2 * len(matched.pairs) >= max(len(one.files), 4)  # one pair may be chance
            found += [(one, other)] if enough and not matched.error else []
    lossy = {one.path: min(one.files).suffix.lower() in (".jpg", ".jpeg") for one in places}
    return sorted(found, key=lambda both: (lossy[both[1].path], not both[1].usual, not both[0].usual))


def _place(path: Path) -> Place:
    words = {path.name.lower(), *re.split(r"[\W_]+", path.name.lower())}
    of_masks, of_images = (not words.isdisjoint(names) for names in (MASK_FOLDERS, IMAGE_FOLDERS))
    files = pictures(path)
    return Place(path, files, of_masks or of_images, of_masks or (not of_images and _flat(min(files))))


def _flat(file: Path) -> bool:
    try:
        rgb = read_image(file).reshape(-1, 3)
    except CrispsegError:
        return False
    counts = np.unique(rgb @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)[1]
    return bool(np.sort(counts)[-8:].sum() >= counts.sum() / 2)
