"""Search for images in folders and patterns, and for folders of matching images and masks."""

from __future__ import annotations

import glob
import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crispseg.data.pairing import match, plain, says_mask
from crispseg.errors import CrispsegError, few
from crispseg.folders.facts import pack_colors
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES, find_images, read_mask
from crispseg.io.parallel import parallel, spread, tried

MASK_FOLDERS = (  # common names of mask folders, in lower case
    *("masks", "mask", "segmentationclass", "labels", "label", "ann_dir", "annotations", "annotation", "annots"),
    *("annot", "gt", "lbl", "segmentations", "lab", "groundtruth", "ground_truth", "segmentation"),
    *("segmentationclasspng", "targets"),
)
SPLITS = {
    "train": ("train", "training", "train2017", "tr", "trn", "trainval", "train_val"),
    "val": ("val", "valid", "validation", "dev", "val2017"),
    "test": ("test", "testing", "test2017", "ts", "tst"),
}
"""Folder names of each split, including those of COCO and nnU-Net."""
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
_AROUND = re.compile(r"^(\d+|[a-z])[._) -]+(?=\D)|[_ -](set|data|dataset|split|v\d+)$", re.I)  # as in "a. Training Set"
_END = re.compile(r"(.+)[-_ ](train|training|val|valid|validation|test|testing)", re.I)  # as in uavid_train
OTHERS = re.compile(r"instance|object|predict|overlay|viz", re.I)  # in names of folders without class masks
SAME, GRID = 16, 64  # number of masks to compare with each other, and of their rows and columns
DIFFERENT = 0.1  # largest share of the pixels of a value that differ; fields of view have 0.04, leaves 0.27
LEVELS, MOST = 6, 1000  # maximum depth and number of folders to search, because the folder may be a home directory
ANNOTATED = ".npy", ".npz", ".txt", ".csv", ".json", ".geojson", ".xml", ".mat"  # of annotations and lists

_SPLIT = "|".join(sorted(SPLIT_OF, key=len, reverse=True))
_KIND = "|".join(sorted((*IMAGE_FOLDERS, *MASK_FOLDERS), key=len, reverse=True))
_JOINT = re.compile(rf"^(?:{_SPLIT})(?=[-_ ]|(?:{_KIND})$)|(?P<start>^(?:{_KIND})|[-_ ])(?:{_SPLIT})$", re.IGNORECASE)
"""Split name in a folder name, such as train_images or imagesTr."""


class Place(NamedTuple):
    """A folder of images, or a pattern of several folders."""

    path: Path
    files: Mapping[Path, str]
    usual: bool  # whether its name indicates its content
    masks: bool  # whether it contains masks, by its name or because eight colours cover most of its first image


Reading = tuple[Place, Place]  # matching images and masks


def is_pattern(place: Path) -> bool:
    """Return whether a path is a pattern, such as data/*/rgb or data/*.tif."""
    return glob.has_magic(str(place)) and not place.exists()


def pictures(place: Path) -> dict[Path, str]:
    """Return the images in a folder, or in all folders or files that a pattern matches, with their names.

    A name is the path in the folder without suffix, preceded by the text that wildcards match.
    """
    named = {}
    for path in map(Path, sorted(glob.glob(str(place)))) if is_pattern(place) else [place]:  # noqa: PTH207
        one, pattern = (path.with_suffix(""), place.with_suffix("")) if path.is_file() else (path, place)
        front = [*filter(None, map(_meant, one.parts, pattern.parts))] if path != place else []
        for file in [path] if path.is_file() else find_images(path):
            name = "/".join([*front, *file.with_suffix("").relative_to(one).parts]) or one.name
            named[file] = unicodedata.normalize("NFC", name)
    return {file: name for file, name in named.items() if file.suffix.lower() in SUFFIXES}


def _meant(part: str, pattern: str) -> str:
    """Return the text that the wildcards of a part of a pattern match; empty without wildcards."""
    if not glob.has_magic(re.sub(r"\[[*?[]\]", "", pattern)):
        return ""
    first, *_, last = re.split(r"\*|\?|\[.*?\]", pattern)
    return part.removeprefix(first).removesuffix(last)


def split_of(folder: str) -> str | None:
    """Return the split that a folder name means, if it means one."""
    return SPLIT_OF.get(_AROUND.sub("", folder).lower())


def by_split(place: Path, files: Mapping[Path, str]) -> dict[str, dict[Path, str]]:
    """Return the images of a place by split, from the text of a wildcard or a sub-folder; "" for no split.

    The names omit the split.
    """
    levels = sum(map(glob.has_magic, place.parts)) if is_pattern(place) else 1
    folders = {part for name in files.values() for part in name.split("/")[:-1][:levels]}
    ends = {part: end for part in folders if (end := _END.fullmatch(_AROUND.sub("", part)))}
    splits = {split_of(end[2]) for end in ends.values()}
    ends = ends if "train" in splits and len(splits) > 1 else {}
    found: dict[str, dict[Path, str]] = defaultdict(dict)
    for file, name in files.items():
        parts, split = name.split("/"), None
        inner = range(min(len(parts) - 1, levels))
        if exact := [at for at in inner if split_of(parts[at])]:
            split = split_of(parts.pop(exact[0]))
        elif ended := [at for at in inner if parts[at] in ends]:
            parts[ended[0]], word = ends[parts[ended[0]]].groups()
            split = split_of(word)
        found[split or ""][file] = "/".join(parts)
    return found


def listing(root: Path) -> dict[Path, Counter[str]]:
    """Return `root` and its sub-folders that contain images or annotations, with file counts by suffix."""
    found = {}
    for place, folders, files in itertools.islice(os.walk(root, followlinks=True), MOST):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if depth < LEVELS and name[0] != ".")
        names = [name for name in files if name[0] != "." and not name.endswith(".aux.xml")]
        counts = Counter(Path(name).suffix.lower() for name in names)
        if shown := Counter({key: counts[key] for key in (*sorted(SUFFIXES), *ANNOTATED) if counts[key]}):
            found[Path(place)] = shown
    return found


def described(root: Path) -> str:
    """Return the result of `listing` as text, such as "dataset1/rgb: 22 png, dataset1/label: 22 png"."""
    lines = []
    for folder, counts in listing(root).items():
        files = " and ".join(f"{count} {suffix[1:]}" for suffix, count in counts.items())
        lines.append(f"{folder.relative_to(root)}: {files}")
    return few(lines, 12)


def readings(root: Path, usual: bool = False) -> list[Reading]:
    """Return matching images and masks below `root`, the most likely first; `usual` tries only common names.

    Folders that differ only in the split name are combined, and also folders of one name at one depth, such as
    dataset1/rgb and dataset2/rgb. A single pair of folders with common names is returned even if files do not match.
    """
    alike: dict[tuple[Path, str], set[Path]] = defaultdict(set)
    for folder, counts in listing(root).items():
        suffixes = sorted(SUFFIXES & counts.keys())
        if suffixes and not OTHERS.search(folder.name):
            pattern, one, kind = _pattern(root, folder)
            if kind or not usual:
                alike[pattern, kind].add(one)
    several = any(len(folders) > 1 for folders in alike.values())  # then masks of train only are also found by pattern
    places = []
    for (pattern, kind), folders in alike.items():
        in_split = any(split_of(part) for one in folders for part in one.relative_to(root).parts)
        path = pattern if len(folders) > 1 or (several and in_split) else min(folders)
        if files := pictures(path):
            places.append(Place(path, files, bool(kind), kind == "masks" or (not kind and _flat(min(files)))))
    both = [(one, other) for one, other in itertools.product(places, places) if other.masks and not one.masks]
    lossy = {one.path: min(one.files).suffix.lower() in (".jpg", ".jpeg") for one in places}
    found = _nearest([reading for reading in both if _pair(*reading)])
    by_name = {place.path for reading in found if _share_names(*reading) for place in reading}
    alone = [one for one in found if not by_name.issuperset(place.path for place in one)]
    found = [one for one in found if _share_names(*one) or one in alone or (one[0].usual and one[1].usual)]
    found.sort(key=lambda reading: (lossy[reading[1].path], not reading[1].usual, not reading[0].usual))
    named = [reading for reading in both if all(place.usual for place in reading)]
    return found or (named if len(named) == 1 else [])


def _nearest(found: Sequence[Reading]) -> list[Reading]:
    """Leave out images and masks in folders apart, if both match others in nearer folders, as those of each species."""
    common = [len(Path(os.path.commonpath([one.path, other.path])).parts) for one, other in found]
    nearest: Counter[Path] = Counter()
    for reading, depth in zip(found, common, strict=True):
        nearest |= Counter({place.path: depth for place in reading})  # the larger of both
    return [one for one, depth in zip(found, common, strict=True) if depth >= min(nearest[place.path] for place in one)]


def endings(root: Path) -> list[Reading]:
    """Return patterns of images and masks in the same folders, in which masks have the names of images and an ending.

    An example is *.jpg and *_semantic.png.
    """
    top = Path(glob.escape(str(root)))
    folders = [folder.relative_to(root) for folder, counts in listing(root).items() if SUFFIXES & counts.keys()]
    if all(split_of(folder.name) and folder.parent == Path() for folder in folders):
        folders = [Path("*")] * bool(folders)
    found: list[Reading] = []
    for folder in folders:
        ends: dict[str, Path] = {}
        counts: Counter[str] = Counter()
        base = None
        for file, name in sorted(pictures(top / folder).items(), key=itemgetter(1)):
            if base is None or not name.startswith(base) or name[len(base) : len(base) + 1].isalnum():
                base = name
            end = glob.escape(name[len(base) :] + file.suffix)
            counts[end], ends[end] = counts[end] + 1, file
        usual = [end for end, count in counts.items() if 2 * count >= max(counts.values()) > 1]
        paths = {end: top / folder / f"*{end}" for end in usual}
        places = [Place(path, pictures(path), False, _flat(ends[end])) for end, path in paths.items()]
        images = [one for one in places if one.path.stem == "*" and not one.masks]
        found += itertools.product(images, [one for one in places if one.masks])
    found.sort(key=lambda both: "semantic" not in both[1].path.name.lower())
    return [reading for reading in found if _pair(*reading)]


def nearly_same(masks: Sequence[Path]) -> bool:
    """Return whether two values or more have nearly the same places in all masks, of which some are read."""
    chosen = [masks[index] for index in spread(len(masks), SAME)]
    grid = np.arange(GRID)
    keys = []
    for mask in parallel(tried(partial(read_mask, lossy=True)), chosen, "Comparing masks"):
        if isinstance(mask, CrispsegError):
            return False
        height, width = mask.shape[:2]
        keys.append(pack_colors(mask[np.ix_(grid * height // GRID, grid * width // GRID)]))
    if len(keys) < 2 or len(values := np.unique(keys)) < 2:
        return False
    there = (np.stack(keys) == value for value in values)
    return all(np.not_equal(one, np.median(one, 0) > 0.5).sum() <= DIFFERENT * one.sum() for one in there)


def other_masks(images: Mapping[Path, str], masks: Mapping[Path, str], root: Path) -> list[Path]:
    """Return folders next to those of the images that seem to contain other masks, for at least half of them."""
    counts = Counter(file.parent.parent for file in images)
    used = {file.parent for file in (*images, *masks)}
    found = []
    for folder in listing(root).keys() - used:
        known = OTHERS.search(folder.name) or split_of(folder.name) or _kind(folder.name) == "images"
        files = pictures(folder) if folder.parent in counts and not known else {}
        if files.keys() - masks and 2 * len(files) >= counts[folder.parent] and _flat(min(files)):
            found.append(folder)
    return sorted(found)


def by_ending(folder: Path, images: Mapping[Path, str], masks: Mapping[Path, str]) -> list[dict[str, str]]:
    """Return the settings that choose one kind of masks if names add several endings to the names of their images.

    An ending is that of masks of at least half of the images. `data.images` is left out if it would match masks too.
    """
    counts: Counter[str] = Counter()
    known = {*images.values()}
    for file, name in masks.items():
        if image := next((name[:at] for at in range(len(name) - 1, 0, -1) if name[:at] in known), ""):
            counts[name.removeprefix(image) + file.suffix] += 1
    endings = [ending for ending, count in counts.items() if 2 * count >= len(images)]
    kinds = {re.sub(r"[\W\d_]|\.\w+$", "", ending) for ending in endings}
    if len(kinds) < 2 or "" in kinds:  # otherwise the endings may number objects
        return []
    tails = {"".join(re.findall(r"[-_][^-_/]*$", name)) for name in known}
    tail = min(tails) if len(tails) == 1 else ""
    top = Path(glob.escape(str(folder))).joinpath(*["*"] * min(name.count("/") for name in known))
    suffixes = {file.suffix for file in images}
    alone = len(suffixes) == 1 and (tail or suffixes.isdisjoint(file.suffix for file in masks))
    own = {"data.images": f"{top}/*{tail}{min(suffixes)}"} if alone else {}
    return [own | {"data.masks": f"{top}/*{tail}{ending}"} for ending in sorted(endings)]


def settings(found: Sequence[Reading]) -> list[dict[str, str]]:
    """Return the settings that select each of the most likely readings."""
    return [{"data.images": str(images.path), "data.masks": str(masks.path)} for images, masks in found[:4]]


def _pattern(root: Path, folder: Path) -> tuple[Path, Path, str]:
    """Return a pattern of similarly named folders, this folder, and its kind: "images", "masks" or "".

    The pattern keeps the part of the path that names the kind, or the last part that is no split.
    """
    parts = folder.relative_to(root).parts
    kinds = [_kind(part) for part in parts]
    kind = next((kind for kind in ("masks", "images") if kind in kinds), "")
    others = [index for index, part in enumerate(parts) if not split_of(part)]
    at = kinds.index(kind) if kind else max(others, default=-1)
    if at < 0:
        return (root / "*", root / parts[0], "images") if parts else (root, root, "")
    top = Path(glob.escape(str(root)))
    if not at and _JOINT.sub("", parts[0]) == parts[0]:
        return root / parts[0], root / parts[0], kind
    name = _JOINT.sub(r"\g<start>*", glob.escape(parts[at]))
    return top.joinpath(*["*"] * at, name), root.joinpath(*parts[: at + 1]), kind


def _kind(name: str) -> str:
    plain = _JOINT.sub(r"\g<start>", name).lower().strip("-_ ")
    words = {plain, *re.split(r"[\W_]+", plain)}
    kinds = ("masks", MASK_FOLDERS), ("images", IMAGE_FOLDERS)
    return next((kind for kind, names in kinds if not words.isdisjoint(names)), "")


def _pair(images: Place, masks: Place) -> bool:
    """Return whether enough file names match, and masks are not likely to be one file per class."""
    files = {file: name for file, name in images.files.items() if file not in masks.files}
    matched = match(files, masks.files, images.path, masks.path)
    usual = images.usual and masks.usual
    if matched.error or 2 * len(matched.pairs) < (1 if usual else max(len(files), 4)):
        return False
    of_a_class = {name.rpartition("_")[0] for name in masks.files.values()} <= {*files.values()}
    return usual or not of_a_class or any(map(says_mask, masks.files.values()))


def _share_names(images: Place, masks: Place) -> bool:
    """Return whether some images and masks pair by names, not by numbers."""
    one, other = ({plain(name.rpartition("/")[2]) for name in place.files.values()} for place in (images, masks))
    return not one.isdisjoint(other)


def _flat(file: Path) -> bool:
    try:
        mask = read_mask(file, lossy=True)
    except CrispsegError:
        return False
    counts = np.unique(pack_colors(mask) if mask.ndim == 3 else mask, return_counts=True)[1]
    return bool(np.sort(counts)[-8:].sum() >= counts.sum() / 2)
