"""Which image and which mask belong together, and how images are divided where there are no splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from crispseg.config.settings import plural
from crispseg.data.dataset import Pair, read_lines
from crispseg.errors import CrispsegError
from crispseg.io.images import SUFFIXES, find_images

PairingKind: TypeAlias = Literal["image-without-mask", "mask-without-image", "ambiguous-names", "listed-file-missing"]

_OF_MASKS = r"^(masks?|labels?|gt|seg)[-_]|[-_. ](masks?|labels?|gt|ground_?truth|seg|segmentation|annotations?|l)$"
_ADDED = re.compile(rf"{_OF_MASKS}|^(images?|img)[-_]|[-_. ](images?|img|sat)$|\.(jpe?g|png|tiff?|bmp)$")
"""What the names of masks, and of images, may say beside the name that both share; in lower case."""


class PairingFault(NamedTuple):
    """A kind of fault and the files, or the entries of a list, that have it."""

    kind: PairingKind
    files: tuple[str, ...]


_collected: ContextVar[list[PairingFault] | None] = ContextVar("_collected", default=None)


@contextmanager
def collected_faults() -> Iterator[list[PairingFault]]:
    """Within it, data sources leave out files that do not pair, and list them here, where they would raise."""
    faults: list[PairingFault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def pairing_fault(message: str, *found: tuple[PairingKind, Iterable[object]], fatal: bool = True) -> None:
    """Report files that do not pair, of one kind or several.

    Raises:
        CrispsegError: the message, outside of `collected_faults`, if it is fatal.
    """
    faults = _collected.get()
    if faults is None:
        if fatal:
            raise CrispsegError(message)
        return
    new = (PairingFault(kind, tuple(map(str, files))) for kind, files in found)
    faults += [fault for fault in new if fault.files and fault not in faults]


def pair_below(images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """Pair the images and masks in two folders, sub-folders included, whose paths differ by their endings only.

    Args:
        hint: ends an error: what belongs where and where to get it.

    Raises:
        CrispsegError: a folder is missing or empty, or a file has no partner.
    """
    image_of, mask_of = _files_below(images, image_ending, hint), _files_below(masks, mask_ending, hint)
    left = _lonely(image_of, mask_of, images, masks)
    return _joined(image_of, mask_of, left and f"{left}; {hint}")


def pair_listed(listing: Path, images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """Return the pairs that a text file names, one a line.

    The first word of a line is the path of an image below `images`, with or without the ending. Folders that are not
    there do not count, as those of the machine on which a list was made.

    Raises:
        CrispsegError: the list is missing or empty, names one image in two ways, or a file is missing.
    """
    words: dict[str, str] = {}
    for word in (line.split()[0] for line in read_listing(listing, hint)):
        name = word.removesuffix(image_ending).removesuffix(mask_ending)
        if not (images / (name + image_ending)).is_file():
            name = Path(name).stem if Path(name).suffix.lower() in SUFFIXES else Path(name).name
        if words.setdefault(name, word) != word:
            raise CrispsegError(f"{listing} names {name} twice, as {words[name]} and {word}; remove one line")
    pairs = [Pair(name, images / (name + image_ending), masks / (name + mask_ending)) for name in words]
    return present(pairs, listing, hint)


def present(pairs: list[Pair], listing: Path, hint: str) -> list[Pair]:
    """The pairs that a list names, without those of which a file is missing.

    Raises:
        CrispsegError: there are some, outside of `collected_faults`.
    """
    missing = [file for pair in pairs for file in (pair.image, pair.mask) if not file.is_file()]
    if missing:
        message = f"{len(missing)} of the {2 * len(pairs)} files that {listing} names are missing, first {missing[0]}"
        pairing_fault(f"{message}; {hint}", ("listed-file-missing", missing))
    lost = set(missing)
    return [pair for pair in pairs if not lost & {pair.image, pair.mask}]


def read_listing(listing: Path, hint: str) -> list[str]:
    """The lines of a list that belongs to a data set, as `read_lines`; `hint` says where the list is to be had."""
    if not listing.is_file():
        raise CrispsegError(f"{listing} is missing; {hint}")
    return read_lines(listing)


class Matched(NamedTuple):
    """The images of one folder with the masks of another."""

    pairs: dict[str, Pair]
    """By name, sorted."""
    unpaired: frozenset[str]
    """Names of the files that are in no pair."""
    note: str
    """What was left out, for the user to know; empty where nothing was."""


def match(images: Path, masks: Path) -> Matched:
    """Pair images with masks by their path in the folder without suffix, and without what a mask's name may add.

    Where all images lie in sub-folders, and masks in none, or the other way round, names alone count. In one folder for
    both, masks are those whose names say so, such as a_mask.png. Files without a partner are left out, unless hardly
    any files have one.

    Raises:
        CrispsegError: a folder is missing or empty, or is the same and no name says which are masks; two files have one
            name; or fewer than half of the files of the folder that holds less have a partner, so that the two hardly
            belong together.
    """
    if images.is_dir() and not masks.is_dir():
        what = "not a folder" if masks.exists() else "missing"
        raise CrispsegError(
            f"{masks} is {what}; put the masks there, or say where they are by data.images and data.masks"
        )
    if images.resolve() == masks.resolve():
        every = _by_name(images)
        image_of, mask_of = ({name: every[name] for name in every if _of_mask(name) is one} for one in (False, True))
        if not image_of or not mask_of:
            raise CrispsegError(
                f"images and masks are the same folder, {images}; put them into two, or call the mask of a.jpg "
                "a_mask.png"
            )
    else:
        image_of, mask_of = _by_name(images, masks), _by_name(masks, images)
    deep_images, deep_masks = (["/" in name for name in found] for found in (image_of, mask_of))
    if (all(deep_images) and not any(deep_masks)) or (all(deep_masks) and not any(deep_images)):
        image_of, mask_of = (_by_last(found) for found in (image_of, mask_of))
    ambiguous = {name for name, paths in [*image_of.items(), *mask_of.items()] if len(paths) > 1}
    for name in sorted(ambiguous):
        for paths in (image_of.pop(name, []), mask_of.pop(name, [])):  # which of them is meant is not known
            if len(paths) > 1:
                message = f"{paths[0]} and {paths[1]} have the same name; rename or remove one of them"
                pairing_fault(message, ("ambiguous-names", paths))
    called = _called(image_of)
    for name in sorted(mask_of.keys() - image_of.keys()):
        base = called.get(_plain(name))
        if base is None:
            continue
        if base not in mask_of:
            mask_of[base] = mask_of.pop(name)
            continue
        both = mask_of[base] + mask_of.pop(name)
        ambiguous.add(base)
        pairing_fault(
            f"two masks fit one image: {both[0]} and {both[1]}; remove one of them", ("ambiguous-names", both)
        )
    for name in ambiguous:
        image_of.pop(name, None)
        mask_of.pop(name, None)
    first_of, second_of = ({name: paths[0] for name, paths in sorted(found.items())} for found in (image_of, mask_of))
    unpaired = ambiguous | (first_of.keys() ^ second_of.keys())
    left = _lonely(first_of, second_of, images, masks)
    paired = len(first_of.keys() & second_of.keys())
    other_files = 2 * paired < min(len(first_of), len(second_of)) or not paired
    hint = "give both the same names, or move the extra ones away"
    pairs = {pair.name: pair for pair in _joined(first_of, second_of, left and f"{left}; {hint}", fatal=other_files)}
    return Matched(pairs, frozenset(unpaired), left and f"{left}; these are left out")


def holds_both(folder: Path) -> bool:
    """Whether masks lie beside the images that they belong to, such as a_mask.png beside a.jpg.

    They are looked for in the folder and those in it, no deeper: it may be anything, such as one's home.
    """
    if not folder.is_dir():
        return False
    files = [*folder.glob("*.*"), *folder.glob("*/*.*")]
    found = [_name_of(file, folder) for file in files if file.suffix.lower() in SUFFIXES]
    plain = [{_plain(name) for name in found if _of_mask(name) is one} for one in (False, True)]
    return not plain[0].isdisjoint(plain[1])


def instance_masks(folder: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """The files of a folder by the names of pairs; `names` has the path of each in the folder, without suffix.

    Raises:
        CrispsegError: there is no such folder, or no file for some of them.
    """
    there = {_name_of(file, folder): file for file in find_images(folder)}
    if missing := [path for path in names.values() if path not in there]:
        raise CrispsegError(
            f"data.instances {folder} has no file for {len(missing)} of {len(names)} images: {few(missing)}; "
            "number the objects of each image in a file of its name"
        )
    return {name: there[path] for name, path in names.items()}


def _name_of(file: Path, folder: Path) -> str:
    """Its path in the folder without suffix; letters with accents in one of the two ways in which names have them."""
    return unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())


def few(items: Iterable[object], most: int = 5) -> str:
    """The first few, to be named in an error."""
    shown = list(map(str, items))
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def _called(names: Iterable[str]) -> dict[str, str]:
    """Plain name → name, without those that several names share; a name that is plain already goes first.

    nnU-Net's `a_0000` is also called a, unless others are.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_plain(name), []).append(name)
    for plain in [plain for plain in found if plain.endswith("_0000")]:
        found.setdefault(plain.removesuffix("_0000"), found[plain])
    return {
        plain: next((name for name in same if name.casefold() == plain), same[0])
        for plain, same in found.items()
        if len(same) == 1 or plain in map(str.casefold, same)
    }


def _by_last(nested: dict[str, list[Path]]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name, paths in nested.items():
        found.setdefault(name.rpartition("/")[2], []).extend(paths)
    return found


def _plain(name: str) -> str:
    """What the names of an image and of its mask have in common, where one of them, or both, say which it is."""
    folder, slash, stem = name.casefold().rpartition("/")
    return folder + slash + (_ADDED.sub("", stem) or stem)


def _lonely(image_of: dict[str, Path], mask_of: dict[str, Path], images: Path, masks: Path) -> str:
    no_mask, no_image = sorted(image_of.keys() - mask_of.keys()), sorted(mask_of.keys() - image_of.keys())
    parts = []
    if no_mask:
        parts.append(f"{len(no_mask)} of {len(image_of)} images in {images} have no mask in {masks} ({few(no_mask)})")
    if no_image:
        parts.append(f"{len(no_image)} of {len(mask_of)} masks in {masks} have no image in {images} ({few(no_image)})")
    return " and ".join(parts)


def _joined(image_of: dict[str, Path], mask_of: dict[str, Path], message: str, *, fatal: bool = True) -> list[Pair]:
    """The pairs of what two folders hold, by name; files without a partner are a fault, of which the message tells."""
    if message:
        pairing_fault(
            message,
            ("image-without-mask", (image_of[name] for name in sorted(image_of.keys() - mask_of.keys()))),
            ("mask-without-image", (mask_of[name] for name in sorted(mask_of.keys() - image_of.keys()))),
            fatal=fatal,
        )
    return [Pair(name, image_of[name], mask_of[name]) for name in image_of if name in mask_of]


def _files_below(folder: Path, ending: str, hint: str) -> dict[str, Path]:
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():
            what = "no folder" if level.exists() else "missing"
            raise CrispsegError(f"{level} is {what}; {hint}")
    paths = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not paths:
        raise CrispsegError(f"{folder} holds no files *{ending}; {hint}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in paths}


def _of_mask(name: str) -> bool:
    return re.search(_OF_MASKS, name.rpartition("/")[2].casefold()) is not None


def _by_name(folder: Path, other: Path | None = None) -> dict[str, list[Path]]:
    """Files by their path in the folder without suffix, except those in the other folder if that lies inside."""
    root, beside = folder.resolve(), other and other.resolve()
    inside = folder / beside.relative_to(root) if beside and beside.is_relative_to(root) else None
    files: dict[str, list[Path]] = {}
    for path in find_images(folder):
        if inside is None or not path.is_relative_to(inside):
            files.setdefault(_name_of(path, folder), []).append(path)
    if not files:
        raise CrispsegError(
            f"{folder} holds no images; known suffixes: {', '.join(sorted(SUFFIXES))}{annotated(folder)}"
        )
    return files


def annotated(folder: Path) -> str:
    """What to do where a folder holds annotations that are no pictures, to end an error; else empty."""
    if not any(folder.glob("*.json")):
        return ""
    return "; it holds JSON files: 'crispseg data import' makes masks of those of COCO and labelme"


def shared_out(names: Sequence[str], ratio: float, seed: int, where: Path) -> dict[str, list[str]]:
    """Names divided by the share of val, drawn by the seed; where it is not 0 or 1, both splits get some.

    Raises:
        CrispsegError: there are not two names for two splits; the message says `where`.
    """
    count = round(ratio * len(names))
    if 0 < ratio < 1:
        if len(names) < 2:
            what = "one image" if names else "no image"
            raise CrispsegError(f"{where} holds {what} to train and to validate on; two or more are needed")
        count = min(max(count, 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return _divided(names, {names[index] for index in order[:count]})


def folded(names: Sequence[str], folds: int, fold: int, seed: int) -> dict[str, list[str]]:
    """Names divided into parts of equal size, drawn by the seed, of which number `fold`, from 1 on, is val.

    Raises:
        CrispsegError: there are fewer names than parts.
    """
    if len(names) < folds:
        most = f"give {len(names)}" if len(names) > 1 else "label more"
        raise CrispsegError(f"data.folds is {folds}, but there are {plural(len(names), 'image')}; {most}")
    order = np.random.default_rng(seed).permutation(len(names))
    return _divided(names, {names[index] for index in order[fold - 1 :: folds]})


def refuse_shared(names: Mapping[str, Sequence[str]], lists: Mapping[str, Path]) -> None:
    """Refuse names that stand in the lists of two splits; where faults are collected, these are found anyway.

    Raises:
        CrispsegError: there are some.
    """
    for one, other in combinations(names, 2):
        if both := sorted({*names[one]} & {*names[other]}):
            stand = "1 image stands" if len(both) == 1 else f"{len(both)} images stand"
            pairing_fault(
                f"{stand} in both {lists[one]} and {lists[other]}: {few(both)}; validate on images that are not "
                "trained on"
            )


def _divided(names: Sequence[str], val: set[str]) -> dict[str, list[str]]:
    return {"train": [name for name in names if name not in val], "val": sorted(val)}
