"""Pairs of images and masks by the names of their files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crispseg.config.settings import plural
from crispseg.errors import CrispsegError, few
from crispseg.folders.splits import Files, chosen_names
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree
from crispseg.io.images import IMAGE_FOLDERS

MASK_FOLDERS = (  # common names of mask folders, in lower case
    *("masks", "mask", "segmentationclass", "labels", "label", "ann_dir", "annotations", "annotation", "annots"),
    *("annot", "gt", "lbl", "segmentations", "lab", "groundtruth", "ground_truth", "segmentation"),
    *("segmentationclasspng", "targets"),
)

_OF_MASK = re.compile(
    r"^mask of (images?[-_])?|^(masks?|labels?|lbl|gt|seg)[-_]|(?<=\d)m$|"
    r"(\.(jpe?g|png|tiff?|bmp))?[-_. ]+(masks?|labels?|gt|ground_?truth|seg|segmentation|annotations?|targets?|l|fuse)$"
)
_OF_BOTH = re.compile(
    rf"{_OF_MASK.pattern}|^(images?|img)[-_]|[-_. ](images?|img|sat)$|_0000$|\.(jpe?g|png|tiff?|bmp)$"
)
"""Affixes of the names of masks and images around their common part, in lower case."""
_NUMBER = re.compile(r"[-_. ]*\(?\d+\)?$")
"""Number of an object at the end of a name, as in a_1 and a (2)."""

MERGE = "if an image has several masks, merge them into one PNG of class ids"


def plain(name: str) -> str:
    """Return the common part of the names of an image and its mask, without affixes such as _mask if text remains.

    Sub-folders that are called images or masks are left out too.
    """
    *folders, stem = name.casefold().split("/")
    stem = _OF_BOTH.sub("", stem) or stem
    while (shorter := _OF_MASK.sub("", stem) or stem) != stem:  # x_target may be an image of x_target_mask
        stem = shorter
    kinds = {*IMAGE_FOLDERS, *MASK_FOLDERS}
    return "/".join([*(folder for folder in folders if folder not in kinds), stem])


def says_mask(name: str) -> bool:
    """Return whether a file name indicates a mask, also one with the number of an object."""
    stem = name.rpartition("/")[2].casefold()
    return any(map(_OF_MASK.search, (stem, _NUMBER.sub("", stem))))


def images_and_masks(files: Files) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the images and the masks of one folder, by their names; otherwise JPEGs are the images."""
    masks = {file: name for file, name in files.items() if says_mask(name)}
    if not masks:
        masks = {file: name for file, name in files.items() if file.suffix.lower() not in (".jpg", ".jpeg")}
    return {file: name for file, name in files.items() if file not in masks}, masks


NO_MASK, NO_IMAGE, AMBIGUOUS = "image-without-mask", "mask-without-image", "ambiguous-names"


@dataclass(frozen=True)
class Pairing:
    """Images and masks of two places, paired by name."""

    images: str  # place of the images, for messages
    masks: str
    pairs: Mapping[str, Pair]  # by name, sorted
    unpaired: Mapping[str, Files]  # code of a finding → files without exactly one partner
    by_number: bool = False  # whether the names differ, and numbers in them are the same

    @property
    def names(self) -> set[str]:
        """Names of all unpaired files."""
        return set[str]().union(*(files.values() for files in self.unpaired.values()))

    @property
    def note(self) -> str:
        """Note about files that are left out, or about pairs by number; empty if there are none."""
        if self.by_number:
            first = next(iter(self.pairs.values()))
            return f"images and masks pair by their numbers, such as {first.image.name} and {first.mask.name}"
        return f"{self.lonely}; these are left out" if self.lonely else ""

    @property
    def error(self) -> CrispsegError | None:
        """Error that prevents training: ambiguous names, or fewer pairs than files without a partner on both sides."""
        if ambiguous := self.unpaired[AMBIGUOUS]:
            remedy = "rename or remove some, or give data.images or data.masks as a pattern, such as photos/*.png"
            return CrispsegError(f"several images or masks have one name: {few(ambiguous)}; {remedy}; {MERGE}")
        alone = [len(self.unpaired[NO_MASK]), len(self.unpaired[NO_IMAGE])]
        if len(self.pairs) < min(alone) or (any(alone) and not self.pairs):
            remedy = "give both the same names, or move the extra ones away"
            return CrispsegError(f"{self.lonely}; {remedy}; {MERGE}")
        return None

    @property
    def lonely(self) -> str:
        """Message about files without a partner; empty if there are none."""
        sides = (
            ("image", self.unpaired[NO_MASK], self.images, "mask", self.masks),
            ("mask", self.unpaired[NO_IMAGE], self.masks, "image", self.images),
        )
        parts = []
        for noun, files, place, partner, other_place in sides:
            if files:
                count = f"{len(files)} of {plural(len(self.pairs) + len(files), noun)}"
                names = few(sorted(files.values()))
                parts.append(f"{count} in {place} have no {partner} in {other_place} ({names})")
        return " and ".join(parts)


def pair_up(image_of: Files, mask_of: Files, images: str, masks: str) -> Pairing:
    """Pair the files of two places by their names, without affixes such as _mask.

    If only the images or only the masks are in sub-folders, sub-folders are ignored. Different names pair by their
    numbers if both sides have the same numbers. `images` and `masks` are the places, for messages.
    """
    if _in_folders(image_of).isdisjoint(_in_folders(mask_of)):
        image_of, mask_of = _without_folders(image_of), _without_folders(mask_of)
    numbered = _by_number(image_of, mask_of)
    same_images, same_masks = _by_common_part(image_of), _by_common_part(numbered or mask_of)
    for key in [*same_masks]:  # an image a with masks a_1 and a_2 of its objects is ambiguous
        base = plain(_NUMBER.sub("", key))
        if base in same_images and key not in same_images:
            same_masks[base] |= same_masks.pop(key)
    pairs: list[Pair] = []
    unpaired: dict[str, dict[Path, str]] = {NO_MASK: {}, NO_IMAGE: {}, AMBIGUOUS: {}}
    for key in dict.fromkeys([*same_images, *same_masks]):
        own, partners = same_images.get(key, {}), same_masks.get(key, {})
        if not partners:
            unpaired[NO_MASK] |= own
        elif not own:
            unpaired[NO_IMAGE] |= partners
        elif paired := _paired(own, partners):
            pairs += paired
        else:
            unpaired[AMBIGUOUS] |= own | partners
    return Pairing(images, masks, {pair.name: pair for pair in sorted(pairs)}, unpaired, bool(numbered))


def _by_common_part(files: Files) -> dict[str, dict[Path, str]]:
    """Return the files whose names have one common part."""
    same: dict[str, dict[Path, str]] = defaultdict(dict)
    for file, name in files.items():
        same[plain(name)][file] = name
    return same


def _paired(images: Files, masks: Files) -> list[Pair]:
    """Return the pairs of one image and one mask, or of several whose full names are equal; otherwise none."""
    if len(images) == len(masks) == 1:
        return [Pair(name, image, next(iter(masks))) for image, name in images.items()]
    mask_of = {name: file for file, name in masks.items()}
    names = {*images.values()}
    if names != mask_of.keys() or not len(names) == len(images) == len(masks):
        return []
    return [Pair(name, image, mask_of[name]) for image, name in images.items()]


def joined(parts: Mapping[str, Pairing], images: str, masks: str) -> Pairing:
    """Return the pairs and unpaired files of all splits; names of pairs then begin with the split."""
    pairs: dict[str, Pair] = {}
    unpaired: dict[str, dict[Path, str]] = {NO_MASK: {}, NO_IMAGE: {}, AMBIGUOUS: {}}
    for split, part in parts.items():
        pairs |= {f"{split}/{name}": pair for name, pair in part.pairs.items()}
        for code, files in part.unpaired.items():
            unpaired[code] |= files
    return Pairing(images, masks, pairs, unpaired, any(part.by_number for part in parts.values()))


def _in_folders(files: Files) -> set[bool]:
    """Return whether files are in sub-folders: True, False or both."""
    return {"/" in name for name in files.values()}


def _without_folders(files: Files) -> Files:
    return {file: name.rpartition("/")[2] for file, name in files.items()}


def _by_number(image_of: Files, mask_of: Files) -> Files:
    """Return masks with the names of the images of equal number; empty if names match or numbers differ."""
    images, masks = _numbers(image_of), _numbers(mask_of)
    if images.keys() != masks.keys() or {*map(plain, image_of.values())} & {*map(plain, mask_of.values())}:
        return {}
    return {masks[number]: image_of[file] for number, file in images.items()}


def _numbers(files: Files) -> dict[int, Path]:
    """Return files by the last number in their names, such as 0 for labels0000; empty if names differ otherwise."""
    split_names = {file: re.fullmatch(r"(.*?)(\d+)(\D*)", name) for file, name in files.items()}
    numbers = {int(match[2]): file for file, match in split_names.items() if match}
    around = {(match[1], match[3]) for match in split_names.values() if match}
    return numbers if len(around) == 1 and len(numbers) == len(files) else {}


def pair_files(
    images: Path, image_ending: str, masks: Path, mask_ending: str, listing: Path | None = None
) -> list[Pair]:
    """Pair the images and masks of two folders and their sub-folders, whose paths differ only in their endings.

    With a `listing`, only the pairs in this text file are returned, see `chosen_names`. A missing or empty folder, or a
    file without a partner, raises a `CrispsegError`.
    """
    image_of, mask_of = _with_ending(images, image_ending), _with_ending(masks, mask_ending)
    pairs = {name: Pair(name, image_of[name], mask_of[name]) for name in image_of if name in mask_of}
    if listing is None:
        names, missing = [*pairs], sorted(image_of.keys() ^ mask_of.keys())
    else:
        names, missing = chosen_names(listing, [*pairs], ())
    if missing:
        lost = f"images missing in {images}, or their masks in {masks}"
        raise CrispsegError(f"{lost}: {len(missing)} ({few(missing)}); unpack the data again")
    return [pairs[name] for name in names]


def _with_ending(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files of a folder whose names end so, by their names without this ending."""
    paths = Tree.of(folder).files
    files = {str(path).removesuffix(ending): folder / path for path in paths if path.name.endswith(ending)}
    if not files:
        raise CrispsegError(f"{folder} contains no files *{ending}")
    return files
