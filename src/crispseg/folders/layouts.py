"""Layouts of folders: which files are images and which are masks.

`LAYOUTS` is tried in order. If none fits, or if other files could also be the masks, a `Question` lists what a folder
contains, and settings to choose from.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from crispseg.config.files import real_path
from crispseg.errors import CrispsegError, Question, few
from crispseg.folders.pairs import MASK_FOLDERS, MERGE, images_and_masks, plain
from crispseg.folders.splits import SPLIT_OF, Files, split_of
from crispseg.folders.tree import Tree
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES

_NEITHER = re.compile(r"instance|object|predict|overlay|viz|depth", re.IGNORECASE)
"""Words in names of folders without images of a camera and without class masks."""


KIND_OF = dict.fromkeys(IMAGE_FOLDERS, "images") | dict.fromkeys(MASK_FOLDERS, "masks")


_KIND, _SPLIT = ("|".join(sorted(words, key=len, reverse=True)) for words in (KIND_OF, SPLIT_OF))
_ROLE = re.compile(rf"(?P<first>{_SPLIT})?[-_ ]*(?P<kind>{_KIND})[-_ ]*(?P<last>{_SPLIT})?", re.IGNORECASE)
"""Kind and split in a folder name, such as train_images and imagesTr."""


class Role(NamedTuple):
    """Meaning of the name of a folder."""

    kind: str = ""  # images or masks
    split: str = ""

    @property
    def placeholders(self) -> list[str]:
        """Placeholders of such a folder in a `Layout`."""
        if self.kind:
            return [f"{{split {self.kind}}}" if self.split else f"{{{self.kind}}}"]
        return ["{folder}", "{split}"] if self.split else ["{folder}"]


@lru_cache
def role_of(folder: str) -> Role:
    """Return the kind and the split that a folder name contains."""
    if split := split_of(folder):
        return Role(split=split)
    if match := _ROLE.fullmatch(folder):
        split = match["first"] or match["last"]
        return Role(KIND_OF[match["kind"].lower()], SPLIT_OF[split.lower()] if split else "")
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder)}
    kinds = {KIND_OF[word] for word in words & KIND_OF.keys()}
    return Role(max(kinds, default=""))  # masks before images


@dataclass(frozen=True)
class Layout:
    """Places of images and masks in a folder, as paths of placeholders.

    The placeholders are {images} and {masks} for a folder with such a name, {split images} and {split masks} for names
    that also contain a split, {split} for a split, and {folder} for any folder without a kind. Further sub-folders are
    part of the names of the files. In one place for both, the names of files tell masks from images.
    """

    images: str
    masks: str


LAYOUTS = [
    Layout("{images}", "{masks}"),
    Layout("{split images}", "{split masks}"),  # train_images and train_masks, imagesTr and labelsTr
    Layout("{split}", "{split masks}"),  # train and train_masks
    Layout("{folder}/{images}", "{folder}/{masks}"),  # folders of splits, or of scenes
    Layout("{folder}/{folder}/{images}", "{folder}/{folder}/{masks}"),  # folders of splits with folders of scenes
    Layout("{images}", "{images}"),  # masks next to images
    Layout("", ""),
]


@dataclass(frozen=True)
class Located:
    """Images and masks of a folder, and where they are."""

    images: str  # folder or pattern
    masks: str
    image_of: Files  # file → name: its folders, the split first, and its stem
    mask_of: Files
    levels: int = 1  # number of folders in names that may be a split


def recognise(tree: Tree) -> Located:
    """Return the images and masks of the first of `LAYOUTS` that fits.

    A `Question` asks if none fits, or if other files may be the masks too.
    """
    for layout in LAYOUTS:
        if located := locate(tree, layout):
            if ambiguous(tree, located, layout):
                title = "several folders may be the images or the masks"
                raise question(tree, title, f"give other folders as data.images and data.masks; {MERGE}")
            return located
    command = f"'crispseg data import {shlex.quote(str(tree.root))} -o {shlex.quote(f'{tree.root}_masks')}'"
    advice = (
        "give folders or patterns such as x/*_t1.tif as data.images and data.masks, or move the files to images and "
        f"masks, or to train/images and train/masks; {MERGE}; {command} makes masks of polygons in JSON, XML or text"
    )
    raise question(tree, "images and masks are not found", advice)


def locate(tree: Tree, layout: Layout) -> Located | None:
    """Return the images and masks in the places of a layout, or None if it does not fit."""
    images, masks = files_at(tree, layout.images), files_at(tree, layout.masks)
    image_place, mask_place = pattern_of(tree, images, layout.images), pattern_of(tree, masks, layout.masks)
    if layout.images == layout.masks:
        images, masks = images_and_masks(images)
        if {*map(plain, images.values())}.isdisjoint(map(plain, masks.values())):
            return None
    return Located(image_place, mask_place, images, masks) if images and masks else None


def files_at(tree: Tree, place: str) -> Files:
    """Return the image files in a place of a layout, with their names."""
    names = {tree.root / path: name_at(path, place) for path in tree.images}
    return {file: name for file, name in names.items() if name is not None}


def name_at(path: PurePosixPath, place: str) -> str | None:
    """Return the name of a file in a place: its split, its folders and its stem; None if it is in another place."""
    wanted, folders = PurePosixPath(place).parts, path.parts[:-1]
    if len(folders) < len(wanted) or any(map(_NEITHER.search, folders)):
        return None
    before: list[str] = []
    for placeholder, folder in zip(wanted, folders, strict=False):
        role = role_of(folder)
        if placeholder not in role.placeholders:
            return None
        if role.split or placeholder == "{folder}":
            before.append(role.split or folder)
    return normal("/".join([*before, *folders[len(wanted) :], path.stem]))


def normal(name: str) -> str:
    """Return a name in one form of Unicode; systems write accents in two."""
    return unicodedata.normalize("NFC", name)


def pattern_of(tree: Tree, files: Iterable[Path], place: str) -> str:
    """Return the folder of files in a place of a layout, or a pattern of their folders."""
    depth = len(PurePosixPath(place).parts)
    folders = {file.relative_to(tree.root).parts[:depth] for file in files}
    if len(folders) == 1:
        return str(Path(tree.root, *min(folders)))
    parts = [glob.escape(names[0]) if len({*names}) == 1 else "*" for names in zip(*folders, strict=True)]
    return str(Path(glob.escape(str(tree.root)), *parts))


def located_at(images: Path, masks: Path) -> Located:
    """Return the files of a folder or pattern of images, and of one of masks.

    Files in both belong to the place with fewer files. In a shared folder, the names of files tell masks from images.
    A place without images raises a `CrispsegError`.
    """
    levels = max(1, *(sum(map(glob.has_magic, place.parts)) for place in (images, masks)))
    if images.is_file() and masks.is_file():  # one image and its mask, of any names; also a mask alone, as both
        return Located(str(images), str(masks), {images: images.stem}, {masks: images.stem})
    image_of, mask_of = files_in(images), files_in(masks)
    if real_path(images) == real_path(masks):
        image_of, mask_of = images_and_masks(image_of)
        if not image_of or not mask_of:
            raise CrispsegError(f"{images} is the folder of images and of masks; name the mask of a.jpg a_mask.png")
    larger = mask_of if len(image_of) <= len(mask_of) else image_of
    for file in image_of.keys() & mask_of.keys():
        del larger[file]
    return Located(str(images), str(masks), image_of, mask_of, levels)


def files_in(place: Path) -> dict[Path, str]:
    """Return the images in a folder, or in the folders and files of a pattern such as data/*/rgb, with their names.

    A name is the path in the folder without suffix, preceded by the text that wildcards match. A place without images
    raises a `CrispsegError`.
    """
    names: dict[Path, str] = {}
    is_pattern = glob.has_magic(str(place)) and not place.exists()
    paths = sorted(glob.glob(str(place))) if is_pattern else [str(place)]  # noqa: PTH207
    for path in map(Path, paths):
        if path.is_file():
            front = wildcards(path.with_suffix(""), place.with_suffix(""))
            names[path] = "/".join(front) or path.stem
            continue
        front = wildcards(path, place)
        for file in Tree.of(path).images:
            names[path / file] = "/".join([*front, *file.with_suffix("").parts])
    files = {file: normal(name) for file, name in names.items() if file.suffix.lower() in SUFFIXES}
    if not files:
        raise CrispsegError(f"{place} contains no images, {', '.join(sorted(SUFFIXES))}; give their folder")
    return files


def wildcards(path: Path, pattern: Path) -> list[str]:
    """Return the text that the wildcards of each part of a pattern match in a path."""
    texts = []
    for part, wanted in zip(path.parts, pattern.parts, strict=False):
        if path != pattern and glob.has_magic(re.sub(r"\[[*?[]\]", "", wanted)):
            first, *_, last = re.split(r"\*|\?|\[.*?\]", wanted)
            texts.append(part.removeprefix(first).removesuffix(last))
    return [text for text in texts if text]


# Questions ----------------------------------------------------------------------------------------------------------


def ambiguous(tree: Tree, located: Located, layout: Layout) -> bool:
    """Return whether a folder has copies of its images or masks, or other folders that may be the masks."""
    copied = has_copies(tree, located.image_of, layout.images) or has_copies(tree, located.mask_of, layout.masks)
    return copied or has_other_masks(tree, located)


def has_copies(tree: Tree, files: Files, place: str) -> bool:
    """Return whether folders of different names in a place of a layout have names of files in common."""
    depth = len(tree.root.parts) + len(PurePosixPath(place).parts)
    folders: dict[str, set[str]] = defaultdict(set)
    for file, name in files.items():
        folders[Path(*file.parts[:depth]).name].add(name)
    return len(set[str]().union(*folders.values())) < sum(map(len, folders.values()))


def has_other_masks(tree: Tree, located: Located) -> bool:
    """Return whether an unused folder may contain the masks of the images."""
    images = plain_names(located.image_of)
    for folder, files in unused_images(tree, located).items():
        if role_of(folder.name) in (Role(), Role("masks")) and may_pair(images, plain_names(files)):
            return True
    return False


def plain_names(files: Iterable[PurePath]) -> list[str]:
    return [plain(file.stem) for file in files]


def may_pair(images: list[str], masks: list[str]) -> bool:
    """Return whether names of masks are as many as those of images, or include at least half of them."""
    return len(images) == len(masks) or 2 * len({*images} & {*masks}) >= len({*images})


def unused_images(tree: Tree, located: Located) -> dict[PurePosixPath, list[PurePosixPath]]:
    """Return the images that a layout does not use, by folder, without folders such as overlays and predictions."""
    folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    used = located.image_of.keys() | located.mask_of.keys()
    for path in tree.images:
        if tree.root / path not in used and not _NEITHER.search(str(path.parent)):
            folders[path.parent].append(path)
    return folders


def question(tree: Tree, title: str, advice: str) -> Question:
    """Return the question where images and masks are, with folders that may pair as choices."""
    choices: dict[str, dict[str, object]] = {}
    for images, masks in pairs_of_folders(tree):
        text = f"if {Path(masks).name} are the masks of {Path(images).name}"
        choices[text] = {"data.images": images, "data.masks": masks}
    return Question(f"{tree.root}: {title}", listing(tree), choices, advice)


def listing(tree: Tree) -> list[str]:
    """Return the folders with the number of their files by suffix, as a line."""
    folders: dict[PurePosixPath, Counter[str]] = defaultdict(Counter)
    for path in tree.files:
        folders[path.parent][path.suffix.lower()] += 1
    lines = []
    for folder, counts in folders.items():
        files = " and ".join(f"{count} {suffix[1:] or 'files'}" for suffix, count in counts.most_common(3))
        lines.append(f"{folder}: {files}")
    return [f"it contains {few(lines, 12)}" if lines else "it contains no files"]


def pairs_of_folders(tree: Tree) -> list[tuple[str, str]]:
    """Return folders that may pair, the nearest of each, masks second; first those whose names indicate both.

    Folders of one name at one depth, such as dataset1/rgb and dataset2/rgb, are a pattern.
    """
    alike: dict[tuple[int, str], list[PurePosixPath]] = defaultdict(list)
    for path in tree.images:
        alike[len(path.parts), path.parent.name].append(path)
    names: dict[str, list[str]] = {}
    for paths in alike.values():
        place = pattern_of(tree, [tree.root / path for path in paths], str(paths[0].parent))
        names[place] = plain_names(paths)
    pairs = []
    for images, masks in permutations(names, 2):
        if mask_rank(images) < 1 and mask_rank(masks) > -1 and may_pair(names[images], names[masks]):
            pairs.append((images, masks))
    nearest = {pair[0]: folders_in_common(pair) for pair in sorted(pairs, key=folders_in_common)}
    pairs = [pair for pair in pairs if folders_in_common(pair) == nearest[pair[0]]]
    return sorted(pairs, key=lambda pair: (mask_rank(pair[0]), -mask_rank(pair[1])))


def folders_in_common(places: tuple[str, str]) -> int:
    """Return the number of folders that contain both places."""
    return len(Path(os.path.commonpath(places)).parts)


def mask_rank(place: str) -> int:
    """Return 1 for a place whose name indicates masks, -1 for one of images, and 0 for others."""
    return {"masks": 1, "images": -1}.get(role_of(Path(place).name).kind, 0)
