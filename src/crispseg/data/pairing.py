"""Matching of images and masks, and division of images into train and val."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from crispseg.config.settings import plural
from crispseg.errors import CrispsegError, few
from crispseg.folders.names import read_lines
from crispseg.folders.survey import Pair
from crispseg.io.images import SUFFIXES

PairingKind: TypeAlias = Literal[
    "image-without-mask", "mask-without-image", "ambiguous-names", "listed-file-missing", "shifted-numbers"
]

_OF_MASKS = (
    r"^mask of (images?[-_])?|^(masks?|labels?|lbl|gt|seg)[-_]|(?<=\d)m$|"
    r"(\.(jpe?g|png|tiff?|bmp))?[-_. ]+(masks?|labels?|gt|ground_?truth|seg|segmentation|annotations?|targets?|l|fuse)$"
)
_ADDED = re.compile(rf"{_OF_MASKS}|^(images?|img)[-_]|[-_. ](images?|img|sat)$|_0000$|\.(jpe?g|png|tiff?|bmp)$")
"""Affixes of mask and image names around their common part, in lower case."""

AFTER_NAME = re.compile(r"(?<=\S)(?:\s+-?\d+)+$|(?:(?<=\.\w{3})|(?<=\.\w{4}))\s+\S+\.\w{3,4}$")
"""Numbers, or the file of the mask, after the name of an image in a list."""
ODD_FILES = 0.01  # largest share of images or masks that may differ from the others and are left out; more are an error
MERGE = "if an image has several masks, merge them into one PNG of class ids"


def pair_files(
    images: Path, image_ending: str, masks: Path, mask_ending: str, listing: Path | None = None
) -> list[Pair]:
    """Pair the images and masks of two folders and their sub-folders, whose paths differ only in their endings.

    With a `listing`, only the pairs in this text file are returned, see `chosen_names`. A missing or empty folder, or a
    file without a partner, raises a `CrispsegError`.
    """
    image_of, mask_of = _files_below(images, image_ending), _files_below(masks, mask_ending)
    names = [name for name in image_of if name in mask_of]
    lonely = _lonely(image_of.keys() - mask_of, mask_of.keys() - image_of, len(names), images, masks)
    if listing is not None:
        names, missing = chosen_names(listing, names, ())
        found = f"{len(missing)} images in {listing} are missing in {images}, or their masks in {masks}: {few(missing)}"
        lonely = found if missing else ""
    if lonely:
        raise CrispsegError(lonely)
    return [Pair(name, image_of[name], mask_of[name]) for name in names]


def chosen_names(path: Path, names: Sequence[str], unpaired: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the image names in a list file, and its entries that match no image or several.

    Entries are names or file names, with or without sub-folders, or folders of images such as the frames of a video.
    Unknown leading folders, and numbers or the file of the mask after a name, are ignored. Files without a partner, the
    `unpaired`, are left out. Errors are those of `read_lines`.
    """
    full = {*names, *unpaired}
    stems = Counter(PurePosixPath(name).name for name in full)
    known = {PurePosixPath(name).name: name for name in full if stems[PurePosixPath(name).name] == 1}
    known |= {name: name for name in full}
    below: dict[PurePosixPath, list[str]] = defaultdict(list)
    for name in full:
        for parent in [*PurePosixPath(name).parents][:-1]:
            below[parent].append(name)
    folders = Counter(parent.name for parent in below)
    inside = {parent.name: names for parent, names in below.items() if folders[parent.name] == 1}
    inside |= {str(parent): names for parent, names in below.items()}
    chosen, unknown = set(), []

    def meant(line: str) -> list[str]:
        entry = PurePosixPath(unicodedata.normalize("NFC", line).replace("\\", "/"))
        stem = entry.with_suffix("") if entry.suffix.lower() in SUFFIXES else entry
        tails = ["/".join(one.parts[start:]) for start in range(len(entry.parts)) for one in (entry, stem)]
        found = [known[key] for at, key in enumerate(tails) if key in (known if at < 2 else full)]
        return found[:1] or next((inside[key] for key in tails if key in inside), [])

    for line in read_lines(path):
        if found := meant(line) or meant(AFTER_NAME.sub("", line)):
            chosen.update(found)
        else:
            unknown.append(line)
    return sorted(chosen.difference(unpaired)), unknown


class Matched(NamedTuple):
    """Images and masks of two places, matched by name."""

    pairs: Mapping[str, Pair] = {}  # pairs by name, sorted
    faults: Mapping[PairingKind, Mapping[Path, str]] = {}  # unpaired files and their names, by kind of fault
    note: str = ""  # note for the user about the pairing; empty if there is none
    error: CrispsegError | None = None  # error that prevents training
    folders: Mapping[Path, str] = {}  # mask → its sub-folder, if only masks are in sub-folders


def match(image_of: Mapping[Path, str], mask_of: Mapping[Path, str], images: Path, masks: Path) -> Matched:
    """Pair the files of two places by their names, without affixes such as _mask.

    If only the images or only the masks are in sub-folders, sub-folders are ignored. Different names pair by their
    numbers if both sides have the same numbers. Files without a partner are left out. The result has an `error` if
    several files match one, also if they differ by numbers such as a_1 and a_2. It also has one if fewer
    than half of the smaller side have a partner, or if the numbers of one side seem shifted.
    """
    folders: dict[Path, str] = {}
    deep = [{"/" in name for name in found.values()} for found in (image_of, mask_of)]
    if deep in ([{True}, {False}], [{False}, {True}]):
        folders = {file: name.rpartition("/")[0] for file, name in mask_of.items() if "/" in name}
        image_of = {file: name.rpartition("/")[2] for file, name in image_of.items()}
        mask_of = {file: name.rpartition("/")[2] for file, name in mask_of.items()}
    by_number = _by_number(image_of, mask_of)
    groups: dict[str, tuple[dict[Path, str], dict[Path, str]]] = defaultdict(lambda: ({}, {}))
    for side, found in enumerate((image_of, by_number or mask_of)):
        for file, name in found.items():
            groups[plain(name)][side][file] = name
    several: dict[str, str] = {}
    for key, (its_images, its_masks) in groups.items():
        stem = re.sub(r"[-_. ]*\(?\d+\)?$", "", key)  # a of a_1, a_mask of a_mask_1
        only_masks = not its_images or (not its_masks and says_mask(stem))
        if only_masks and stem != key and plain(stem) in groups and all(groups[plain(stem)]):
            several[key] = plain(stem)
    if len({*several.values()}) > ODD_FILES * len(image_of):
        for key, base in several.items():
            for its_files, more in zip(groups[base], groups.pop(key), strict=True):
                its_files.update(more)
    pairs: list[Pair] = []
    kinds: tuple[PairingKind, ...] = ("image-without-mask", "mask-without-image", "ambiguous-names")
    faults: dict[PairingKind, dict[Path, str]] = {kind: {} for kind in kinds}
    no_mask, no_image, ambiguous = faults.values()
    for its_images, its_masks in groups.values():
        names, partners = {*its_images.values()}, {name: file for file, name in its_masks.items()}
        if len(its_images) == len(its_masks) == 1:
            partners = dict.fromkeys(names, *its_masks)
        if len(names) == len(its_images) == len(its_masks) and partners.keys() == names:
            pairs += [Pair(name, file, partners[name]) for file, name in its_images.items()]
        elif its_images and its_masks:
            ambiguous |= its_images | its_masks
        else:
            no_mask |= its_images
            no_image |= its_masks
    paired = {pair.name: pair for pair in sorted(pairs)}
    said = _lonely([*no_mask.values()], [*no_image.values()], len(paired), images, masks)
    note = said and f"{said}; these are left out"
    if by_number:
        first = min(paired.values())
        note = f"images and masks pair by their numbers, such as {first.image.name} and {first.mask.name}"
    error = None
    if ambiguous:
        remedy = "rename or remove some, or give data.images or data.masks as a pattern, such as photos/*.png"
        error = f"several images or masks have one name: {few(ambiguous)}; {remedy}; {MERGE}"
    elif said and (len(paired) < min(len(no_mask), len(no_image)) or not paired):
        error = f"{said}; give both the same names, or move the extra ones away"
        error += f"; {MERGE}" * (len(mask_of) > len(image_of))
    elif _shifted(no_mask, no_image, {pair.image: pair.name for pair in paired.values()}):
        error = f"{said}; the masks may be numbered from another number than their images, so that all pairs are wrong"
        error += "; if so, rename the masks; otherwise, move the files without a partner away"
        faults = {"shifted-numbers": no_mask | no_image}
    return Matched(paired, faults, note, CrispsegError(error) if error else None, folders)


def shared_out(names: Sequence[str], ratio: float, seed: int, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Divide names randomly into train and val; unless the ratio is 0 or 1, neither is empty.

    Args:
        groups: group of each name; a group stays in one split.
    """
    count = round(ratio * len(names))
    if 0 < ratio < 1:
        count = max(min(max(count, 1), len(names) - 1), 0)
    val: list[str] = []
    units = _drawn(names, seed, groups)
    for unit in units:
        size = len(val) + len(unit)
        if abs(size - count) < abs(len(val) - count) and (size < len(names) or ratio == 1):
            val += unit
    if count and len(units) > 1 and not val:  # all are too large
        val = min(units, key=len)
    return _divided(names, val)


def folded(names: Sequence[str], folds: int, fold: int, seed: int, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Divide names randomly into parts of about equal size; part number `fold`, counted from 1, is val.

    See `shared_out` for `groups`; fewer groups than parts raise a `CrispsegError`.
    """
    units = _drawn(names, seed, groups)
    if len(units) < folds:
        what = "image" if len(units) == len(names) else "group"
        raise CrispsegError(f"data.folds is {folds}, but there are {plural(len(units), what)}; give fewer folds")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for unit in sorted(units, key=len, reverse=True):
        min(parts, key=len).extend(unit)
    return _divided(names, parts[fold - 1])


def _drawn(names: Sequence[str], seed: int, groups: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of names in random order."""
    units: dict[str, list[str]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(names)):
        units[groups[names[index]]].append(names[index])
    return [*units.values()]


def _divided(names: Sequence[str], val: Collection[str]) -> dict[str, list[str]]:
    chosen = {*val}
    return {"train": [name for name in names if name not in chosen], "val": sorted(chosen)}


def plain(name: str) -> str:
    """Return the common part of the names of an image and its mask, without affixes such as _mask."""
    folder, slash, stem = name.casefold().rpartition("/")
    stem = _ADDED.sub("", stem) or stem
    while (shorter := re.sub(_OF_MASKS, "", stem)) not in ("", stem):  # x_target may be an image of x_target_mask
        stem = shorter
    return folder + slash + stem


def says_mask(name: str) -> bool:
    """Return whether a file name indicates a mask."""
    return re.search(_OF_MASKS, name.rpartition("/")[2].casefold()) is not None


def apart(files: Mapping[Path, str]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the images and the masks of one folder, by their names; otherwise JPEGs are the images."""
    masks = {file: name for file, name in files.items() if says_mask(name)}
    masks = masks or {file: name for file, name in files.items() if file.suffix.lower() not in (".jpg", ".jpeg")}
    return {file: name for file, name in files.items() if file not in masks}, masks


def _by_number(image_of: Mapping[Path, str], mask_of: Mapping[Path, str]) -> dict[Path, str]:
    """Return masks with the names of the images of equal number; empty if names match or numbers differ."""
    images, masks = _numbers(image_of), _numbers(mask_of)
    if images.keys() != masks.keys() or not {*map(plain, image_of.values())}.isdisjoint(map(plain, mask_of.values())):
        return {}
    return {masks[number]: image_of[file] for number, file in images.items()}


def _numbers(files: Mapping[Path, str]) -> dict[int, Path]:
    """Return files by the last number in their names, such as 0 for labels0000; empty if names differ otherwise."""
    found = {int(each[-1]): file for file, name in files.items() if (each := re.findall(r"\d+", name))}
    alike = len({re.sub(r"\d+(?=\D*$)", "", name) for name in files.values()}) == 1
    return found if alike and len(found) == len(files) else {}


def _shifted(no_mask: Mapping[Path, str], no_image: Mapping[Path, str], paired: Mapping[Path, str]) -> bool:
    """Return whether all images without a mask come before the pairs, and as many masks after them, or the reverse."""
    sides = [_numbers(found) for found in (no_mask, paired, no_image)]
    if not all(sides) or len(no_mask) != len(no_image):
        return False
    return any(max(one) < min(sides[1]) and max(sides[1]) < min(other) for one, _, other in (sides, sides[::-1]))


def _files_below(folder: Path, ending: str) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not paths:
        raise CrispsegError(f"{folder} {f'contains no files *{ending}' if folder.is_dir() else 'is missing'}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in paths}


def _lonely(no_mask: Collection[str], no_image: Collection[str], pairs: int, images: Path, masks: Path) -> str:
    """Return a message about files without a partner; empty if there are none."""
    sides = (no_mask, "images", images, "mask", masks), (no_image, "masks", masks, "image", images)
    return " and ".join(
        f"{len(names)} of {pairs + len(names)} {kind} in {folder} have no {other} in {place} ({few(sorted(names))})"
        for names, kind, folder, other, place in sides
        if names
    )
