"""Which image and which mask belong together, and how images are divided where there are no splits."""

from __future__ import annotations

import glob
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from crispseg.config.settings import plural
from crispseg.data.dataset import Pair, read_lines
from crispseg.data.yolo import yolo_files, yolo_root
from crispseg.errors import CrispsegError
from crispseg.io.images import SUFFIXES, find_images

PairingKind: TypeAlias = Literal["image-without-mask", "mask-without-image", "ambiguous-names", "listed-file-missing"]

_OF_MASKS = (
    r"^mask of (images?[-_])?|^(masks?|labels?|lbl|gt|seg)[-_]|"
    r"(\.(jpe?g|png|tiff?|bmp))?[-_. ]+(masks?|labels?|gt|ground_?truth|seg|segmentation|annotations?|l|fuse)$"
)
_ADDED = re.compile(rf"{_OF_MASKS}|^(images?|img)[-_]|[-_. ](images?|img|sat)$|_0000$|\.(jpe?g|png|tiff?|bmp)$")
"""What the names of masks, and of images, may say beside the name that both share; in lower case."""


def pair_below(images: Path, image_ending: str, masks: Path, mask_ending: str) -> list[Pair]:
    """Pair the images and masks in two folders, sub-folders included, whose paths differ by their endings only.

    Raises:
        CrispsegError: a folder is missing or empty, or a file has no partner.
    """
    image_of, mask_of = _files_below(images, image_ending), _files_below(masks, mask_ending)
    pairs = [Pair(name, image, mask_of[name]) for name, image in image_of.items() if name in mask_of]
    if lonely := _lonely(image_of.keys() - mask_of, mask_of.keys() - image_of, len(pairs), images, masks):
        raise CrispsegError(lonely)
    return pairs


def pair_listed(listing: Path, images: Path, image_ending: str, masks: Path, mask_ending: str) -> list[Pair]:
    """Return the pairs that a text file names, one a line.

    The first word of a line is the path of an image below `images`, with or without the ending. Folders that are not
    there do not count, as those of the machine on which a list was made.

    Raises:
        CrispsegError: the list is missing or empty, or a file is missing.
    """
    names: dict[str, None] = {}
    for line in read_lines(listing):
        name = line.split()[0].removesuffix(image_ending).removesuffix(mask_ending)
        if not (images / (name + image_ending)).is_file():
            name = Path(name).stem if Path(name).suffix.lower() in SUFFIXES else Path(name).name
        names[name] = None
    return present(
        [Pair(name, images / (name + image_ending), masks / (name + mask_ending)) for name in names], listing
    )


def present(pairs: list[Pair], listing: Path) -> list[Pair]:
    """The pairs that a list names; an error if a file is missing."""
    missing = [file for pair in pairs for file in (pair.image, pair.mask) if not file.is_file()]
    if missing:
        files = f"{len(missing)} of the {2 * len(pairs)} files"
        raise CrispsegError(f"{files} that {listing} names are missing, first {missing[0]}")
    return pairs


class Matched(NamedTuple):
    """The images of one folder with the masks of another."""

    pairs: Mapping[str, Pair] = {}
    """By name, sorted."""
    unpaired: frozenset[str] = frozenset()
    """Names of the files that are in no pair."""
    faults: Mapping[PairingKind, Sequence[Path]] = {}
    """These files, by what is wrong with them."""
    note: str = ""
    """What was left out, for the user to know; empty where nothing was."""
    error: str = ""
    """Why nobody may train on them; empty where all is well."""


def match(images: Path, masks: Path) -> Matched:
    """Pair images with masks by their path in the folder without suffix, and without what a mask's name may add.

    Both may be patterns, as for `pictures`. In one folder for both, masks are those whose names say so, such as
    a_mask.png, or else all but JPEGs. One file each, instead of a folder, is a pair.

    Raises:
        CrispsegError: a folder is missing or empty, or is the same and no name says which are masks. If several files
            fit one, or fewer than half of the files of the folder that holds less have a partner, `error` says so.
    """
    if {images.suffix.lower(), masks.suffix.lower()} <= SUFFIXES and not (images.is_dir() or is_pattern(images)):
        return Matched({images.stem: Pair(images.stem, images, masks)})
    image_of, mask_of = _files_in(images, masks), _files_in(masks, images)
    if images.resolve() == masks.resolve():
        image_of, mask_of = _apart(image_of)
        if not image_of or not mask_of:
            raise CrispsegError(f"{images} is the folder of images and of masks; name the mask of a.jpg a_mask.png")
    return match_files(image_of, mask_of, images, masks)


def match_files(image_of: Mapping[Path, str], mask_of: Mapping[Path, str], images: Path, masks: Path) -> Matched:
    """Pair the files of two places by their names, as `match`.

    Where all images lie in sub-folders, and masks in none, or the other way round, names alone count. Names that differ
    pair by their numbers if both sides have the same ones. Files without a partner are left out, unless hardly any
    files have one.
    """
    deep_images, deep_masks = (["/" in name for name in found.values()] for found in (image_of, mask_of))
    if (all(deep_images) and not any(deep_masks)) or (all(deep_masks) and not any(deep_images)):
        image_of, mask_of = (
            {file: name.rpartition("/")[2] for file, name in found.items()} for found in (image_of, mask_of)
        )
    by_number = _by_number(image_of, mask_of)
    mask_of = by_number or mask_of

    groups: dict[str, tuple[dict[Path, str], dict[Path, str]]] = defaultdict(lambda: ({}, {}))
    for side, found in enumerate((image_of, mask_of)):
        for file, name in found.items():
            groups[_plain(name)][side][file] = name
    pairs: list[Pair] = []
    no_mask: dict[str, Path] = {}
    no_image: dict[str, Path] = {}
    ambiguous: dict[Path, str] = {}
    error = ""
    for both in groups.values():
        its_images, its_masks = ({name: file for file, name in side.items()} for side in both)
        if len(both[0]) == len(both[1]) == 1:
            its_masks = dict.fromkeys(its_images, next(iter(both[1])))
        if len(both[0]) == len(both[1]) == len(its_images) and its_images.keys() == its_masks.keys():
            pairs += [Pair(name, file, its_masks[name]) for name, file in its_images.items()]
        elif both[0] and both[1]:
            ambiguous |= {**both[0], **both[1]}
            shown = few([*both[0], *both[1]])
            error = error or f"several images or masks have one name: {shown}; rename or remove some of them"
        else:
            no_mask |= its_images
            no_image |= its_masks
    paired = {pair.name: pair for pair in sorted(pairs)}
    masks_by_name = {name: file for file, name in mask_of.items()}
    for name, file in {**no_mask, **no_image}.items():
        base = re.sub(r"[-_. ]?\d+$", "", name)
        if base != name and base in masks_by_name and _says_mask(base):  # x_mask_1 next to x_mask
            shown = f"{masks_by_name[base]} and {file}"
            error = error or f"{shown} seem to be masks of one image; merge them into one, or move the extra ones away"
    said = _lonely(no_mask, no_image, len(paired), images, masks)
    if said and (len(paired) < min(len(no_mask), len(no_image)) or not paired):
        error = error or f"{said}; give both the same names, or move the extra ones away"
    faults: dict[PairingKind, list[Path]] = {
        "image-without-mask": [*no_mask.values()],
        "mask-without-image": [*no_image.values()],
        "ambiguous-names": [*ambiguous],
    }
    note = said and f"{said}; these are left out"
    if by_number:
        first = min(paired.values())
        note = f"images and masks pair by their numbers, such as {first.image.name} and {first.mask.name}"
    return Matched(paired, frozenset({*ambiguous.values(), *no_mask, *no_image}), faults, note, error)


def holds_both(folder: Path) -> bool:
    """Whether masks lie beside the images that they belong to, such as a_mask.png or a.png beside a.jpg.

    They are looked for in the folder and two levels below: it may be anything, such as one's home.
    """
    files = [file for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}.*")]
    found = _apart({file: _name_of(file, folder) for file in files if file.suffix.lower() in SUFFIXES})
    images, masks = ({_plain(name) for name in side.values()} for side in found)
    return not images.isdisjoint(masks)


def instance_masks(folder: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """The files of a folder by the names of pairs; `names` has the path of each in the folder, without suffix.

    Raises:
        CrispsegError: there is no such folder, or no file for some of them.
    """
    there = {_name_of(file, folder): file for file in find_images(folder)}
    if missing := [path for path in names.values() if path not in there]:
        lacking = f"data.instances {folder} has no file for {len(missing)} of {len(names)} images: {few(missing)}"
        raise CrispsegError(f"{lacking}; number the objects of each image in a file of its name")
    return {name: there[path] for name, path in names.items()}


def few(items: Iterable[object], most: int = 5) -> str:
    """The first few, to be named in an error."""
    shown = list(map(str, items))
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def annotated(folder: Path) -> str:
    """What to do where a folder holds annotations that are no pictures, to end an error; else empty."""
    if polygons := next(yolo_files(folder), None):
        root = shlex.quote(str(yolo_root(polygons)[0]))
        return f"; YOLO's labels are text files: 'crispseg data import {root} -o {root}_masks' makes masks of polygons"
    if any(folder.glob("*.npy")):
        return "; it holds NumPy arrays: save each as a PNG of its image's size, with 255 for what is ignored"
    if not any(file for pattern in ("*.json", "*/*.json") for file in folder.glob(pattern)):
        return ""
    root = shlex.quote(str(folder))
    return f"; it holds JSON files: 'crispseg data import {root} -o {root}_masks' makes masks of COCO's and labelme's"


def shared_out(names: Sequence[str], ratio: float, seed: int, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Names divided by the share of val, drawn by the seed; unless it is 0 or 1, both get some.

    Args:
        groups: for each name that of its group, which stays on one side.
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
    """Names divided into parts of about equal size, drawn by the seed, of which number `fold`, from 1 on, is val.

    For `groups` see `shared_out`.

    Raises:
        CrispsegError: there are fewer groups than parts.
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
    """The groups of names in a random order."""
    units: dict[str, list[str]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(names)):
        units[groups[names[index]]].append(names[index])
    return [*units.values()]


def _divided(names: Sequence[str], val: Collection[str]) -> dict[str, list[str]]:
    chosen = {*val}
    return {"train": [name for name in names if name not in chosen], "val": sorted(chosen)}


def _name_of(file: Path, folder: Path) -> str:
    """Its path in the folder without suffix; letters with accents in one of the two ways in which names have them."""
    return unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())


def _plain(name: str) -> str:
    """What the names of an image and of its mask have in common, where one of them, or both, say which it is."""
    folder, slash, stem = name.casefold().rpartition("/")
    return folder + slash + (_ADDED.sub("", stem) or stem)


def _says_mask(name: str) -> bool:
    return re.search(_OF_MASKS, name.rpartition("/")[2].casefold()) is not None


def _apart(files: Mapping[Path, str]) -> tuple[dict[Path, str], dict[Path, str]]:
    """The images and the masks of one folder: by what names say, else JPEGs are the images."""
    masks = {file: name for file, name in files.items() if _says_mask(name)}
    masks = masks or {file: name for file, name in files.items() if file.suffix.lower() not in (".jpg", ".jpeg")}
    return {file: name for file, name in files.items() if file not in masks}, masks


def _by_number(image_of: Mapping[Path, str], mask_of: Mapping[Path, str]) -> dict[Path, str]:
    """Masks with the names of the images that have their numbers; empty if names pair, or not all numbers do."""
    images, masks = _numbers(image_of), _numbers(mask_of)
    whole = images.keys() == masks.keys() and len(images) == len(image_of) == len(mask_of)
    if not whole or not {*map(_plain, image_of.values())}.isdisjoint(map(_plain, mask_of.values())):
        return {}
    return {masks[number]: image_of[file] for number, file in images.items()}


def _numbers(files: Mapping[Path, str]) -> dict[int, Path]:
    """The files by the one number in which all names differ, such as 0 of labels0000; empty if names differ in more."""
    numbers = zip(*(re.findall(r"\d+", name) for name in files.values()), strict=False)
    columns = [column for column in numbers if len({*column}) > 1]
    alike = len({re.sub(r"\d+", "0", name) for name in files.values()}) == len(columns) == 1
    return {int(number): file for number, file in zip(columns[0], files, strict=True)} if alike else {}


def is_pattern(place: Path) -> bool:
    """Whether it is no path but a pattern, such as data/*/rgb or data/*.tif."""
    return glob.has_magic(str(place)) and not place.exists()


def pictures(place: Path) -> dict[Path, str]:
    """The pictures in a folder, or in all folders that a pattern means, or these pictures; with names without suffix.

    A name is the path in the folder, behind the parts of the pattern's path that have wildcards; of *_t1.tif, say, what
    the * is.
    """
    if not is_pattern(place):
        return {file: _name_of(file, place) for file in find_images(place)}
    named: dict[Path, str] = {}
    for path in map(Path, sorted(glob.glob(str(place)))):  # noqa: PTH207 (a pattern may be absolute)
        key = Path(*(part for part, wild in zip(path.parts, place.parts, strict=True) if glob.has_magic(wild)))
        if path.is_file() and glob.has_magic(place.name):
            first, *_, last = re.split(r"\*|\?|\[.*?\]", f"{place.stem}")
            key = key.with_name(path.stem.removeprefix(first).removesuffix(last) + path.suffix)
        files = find_images(path) if path.is_dir() else [path] if path.suffix.lower() in SUFFIXES else []
        named |= {file: _name_of(key / file.relative_to(path), Path()) for file in files}
    return named


def _files_in(folder: Path, other: Path) -> dict[Path, str]:
    """The pictures in a folder with their names, except those in the other folder if that lies inside."""
    inside = other != folder and other.is_relative_to(folder)
    files = {file: name for file, name in pictures(folder).items() if not (inside and file.is_relative_to(other))}
    if not files:
        raise CrispsegError(f"{folder} holds no images, {', '.join(sorted(SUFFIXES))}{annotated(folder)}")
    return files


def _files_below(folder: Path, ending: str) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not paths:
        raise CrispsegError(f"{folder} {f'holds no files *{ending}' if folder.is_dir() else 'is missing'}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in paths}


def _lonely(no_mask: Collection[str], no_image: Collection[str], pairs: int, images: Path, masks: Path) -> str:
    """What is to be said of the names of files without a partner, besides some pairs."""
    sides = (no_mask, "images", images, "mask", masks), (no_image, "masks", masks, "image", images)
    return " and ".join(
        f"{len(names)} of {pairs + len(names)} {kind} in {folder} have no {other} in {place} ({few(sorted(names))})"
        for names, kind, folder, other, place in sides
        if names
    )
