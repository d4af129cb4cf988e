"""What a folder contains, by the names in it, and what text files declare: names of images and classes, and colours."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from crispseg.config.settings import plural
from crispseg.data.catalogue import catalogue
from crispseg.data.dataset import read_lines
from crispseg.data.pairing import annotated, few, holds_both, pairing_fault
from crispseg.errors import CrispsegError
from crispseg.io.files import IMAGE_FOLDERS
from crispseg.io.images import SUFFIXES
from crispseg.labels import Color


def chosen_names(path: Path, names: Sequence[str], unpaired: Collection[str]) -> list[str]:
    """The names that a list file means, given as names or file names, with or without their sub-folder.

    Folders in front that are none of the data's, and a mask's name behind the image's, do not count.

    Those of files without a partner, the `unpaired`, are left out.

    Raises:
        CrispsegError: the file cannot be read, or an entry names no image or more than one.
    """
    by_stem = defaultdict(list)
    for name in (*names, *unpaired):
        by_stem[PurePosixPath(name).name].append(name)
    known = {
        **{stem: full[0] for stem, full in by_stem.items() if len(full) == 1},
        **{name: name for name in (*names, *unpaired)},
    }
    keys = [_key(unicodedata.normalize("NFC", line), known, {*names, *unpaired}) for line in read_lines(path)]
    if unknown := [key for key in keys if key not in known]:
        pairing_fault(
            f"{len(unknown)} of {len(keys)} entries of {path} name no image, or more than one: {few(unknown)}; "
            "write one name a line, with its sub-folder",
            ("listed-file-missing", (f"{path}: {key}" for key in unknown)),
        )
    return sorted({known[key] for key in keys if key in known}.difference(unpaired))


def _key(line: str, known: Collection[str], full: Collection[str]) -> str:
    """The known name that a line of a list means, a `full` one behind other folders; the line where none fits."""
    first, *rest = re.split(r"[\s,;]+", line, maxsplit=1)
    two = rest and {PurePosixPath(one).suffix.lower() for one in (first, *rest)} <= {*SUFFIXES}
    for text in (line, first) if two else (line,):
        parts = PurePosixPath(text.replace("\\", "/")).parts
        for start in range(len(parts)):
            entry = PurePosixPath(*parts[start:])
            plain = entry.with_suffix("") if entry.suffix.lower() in SUFFIXES else entry
            for key in (str(entry), str(plain)):
                if key in (full if start else known):
                    return key
    return line


def class_names(classes: list[str] | str | Path) -> tuple[str, ...]:
    """Names as they are given, or one a line of a file.

    Raises:
        CrispsegError: there is no such file, or it cannot be read.
    """
    if isinstance(classes, list):
        return tuple(classes)
    if not Path(classes).exists():
        other = f"data.num_classes {classes}" if str(classes).isdecimal() else "a text file with one name a line"
        raise CrispsegError(f"data.classes is {classes}, which is no file; give '[background, road]', or {other}")
    return tuple(read_lines(classes))


def read_palette(path: Path) -> tuple[tuple[Color, ...], tuple[str, ...] | None]:
    """Lines "r g b name" → colours, and names where all lines have one.

    Raises:
        CrispsegError: a line is none, or the file cannot be read.
    """
    lines = [re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(\S.*))?", line) for line in read_lines(path)]
    for number, line in enumerate(lines):
        if line is None:
            raise CrispsegError(f"{path}: entry {number + 1} is not 'r g b name'; write for example '128 64 128 road'")
    parts = [line.groups() for line in lines if line is not None]
    colors = tuple((int(red), int(green), int(blue)) for red, green, blue, _ in parts)
    names = tuple(name for *_, name in parts)
    return colors, names if all(names) else None


def as_color(value: int | Color) -> Color:
    """A grey value v is the colour (v, v, v).

    Raises:
        CrispsegError: it is no colour.
    """
    color = (value, value, value) if isinstance(value, int) else (*value,)
    if len(color) != 3 or not all(0 <= level <= 255 for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color


MASKS = (
    *("masks", "mask", "segmentationclass", "labels", "label", "ann_dir", "annotations", "annotation", "annots"),
    *("annot", "gt", "segmentations"),
)
SPLITS = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "dev", "val2017"),
    "test": ("test", "testing", "test2017"),
}
"""Names of the folders of each split, those of COCO among them."""
SHORT = {"train": ("tr",), "val": (), "test": ("ts",)}
"""What nnU-Net calls them, in names such as imagesTr."""

Folders = Mapping[str, tuple[Path, Path]]
"""Split → folder of images, folder of masks; "" for the images of all splits."""


class FolderLayout(NamedTuple):
    """Where own data lie."""

    top: Path
    """The folder that holds all images, and perhaps more."""
    images: tuple[Path, ...]
    """Folders below it, or itself, that hold nothing but images, and perhaps masks."""
    folders: Folders
    lists: Mapping[str, Path] = MappingProxyType({})
    """Split → file that names its images, or folder that holds them where the masks of all splits lie in one."""
    classes: Path | None = None
    """File of the names of the classes."""
    unlabelled: Path | None = None
    """Folder of images to validate on that have no masks, so that other images have to be that split."""

    @property
    def divided(self) -> bool:
        """Whether the folders, of images and masks both, are the splits."""
        return not self.lists and "" not in self.folders

    def splits_in_words(self, counts: Mapping[str, int], share: float, idle: str) -> list[str]:
        """Where the splits come from, in a line; none where nothing but a share tells.

        Args:
            counts: the images that pair in each of `folders`.
            share: how much of train is val where no folder is.
            idle: what is added where the share does not count.
        """
        if self.divided:
            shown = ", ".join(
                f"{self.folders[part][0].relative_to(self.top)} ({plural(count, 'image')})"
                for part, count in counts.items()
            )
            why = f"{self.unlabelled} has no masks, so " if self.unlabelled else ""
            kept = idle if "val" in self.folders else f"; {why}{share:.0%} of train are kept for val"
            return [f"the splits are folders of {self.top}: {shown}{kept}"]
        if not self.lists:
            return []
        what = "folders of images:" if any(path.is_dir() for path in self.lists.values()) else "listed in"
        kept = idle if {"train", "val"} & self.lists.keys() else ""
        return [f"the splits are {what} {', '.join(map(str, self.lists.values()))}{kept}"]


def recognise(root: Path) -> dict[str, Any]:
    """The settings of `data.*` for what lies in a folder.

    Raises:
        CrispsegError: it is none, or holds nothing in a known layout.
    """
    if not root.is_dir():
        raise CrispsegError(
            f"{root} is {'not a folder' if root.exists() else 'missing'}; give a folder of data, a run, a YAML file or "
            "data.name with its keys"
        )
    for entry in catalogue().values():
        for mark in entry.layout.marks if entry.layout else ():
            if all(any(root.glob(path)) for path in mark["holds"]):
                return {"name": entry.name, "root": str(root), **mark.get("keys", {})}
    if not _first(root, IMAGE_FOLDERS).is_dir():
        own_layout(root)  # raises where splits have no folders of images either
    return {"name": "folder", "root": str(root)}


def own_layout(
    root: Path | None,
    images: Path | None = None,
    masks: Path | None = None,
    lists: Mapping[str, Path] = MappingProxyType({}),
) -> FolderLayout:
    """Where the data below `root` lie; what is given beside it is not looked for.

    Lists that are given go before folders of splits, and these before lists that are found.

    Raises:
        CrispsegError: it has no known layout.
    """
    layout = _layout(root, images, masks, bool(lists))
    classes, found = None, dict(lists)
    if root is not None:
        classes = root / "classes.txt" if (root / "classes.txt").is_file() else None
        found = {split: path for split in SPLITS if (path := root / f"{split}.txt").is_file()} | found
    return layout._replace(lists=(layout.lists or found) if "" in layout.folders else lists, classes=classes)


def _layout(root: Path | None, images: Path | None, masks: Path | None, listed: bool) -> FolderLayout:
    """As `own_layout`, without lists and classes; folders of splits do not count if the splits are listed."""
    if root is not None:
        if images is None and masks is None and not _first(root, IMAGE_FOLDERS).is_dir():
            return _without_images(root, listed)
        images = images or _first(root, IMAGE_FOLDERS)
        if masks is None and not (masks := _first(root, MASKS)).is_dir():
            if layout := _beside(images, listed):
                return layout
            raise CrispsegError(
                f"{root} holds images, but no masks in {', '.join(MASKS[:2])} or the like; say where they are with "
                "data.masks DIR"
            )
    assert images is not None and masks is not None
    if images == masks and (layout := _beside(images, listed)):
        return layout
    plain = FolderLayout(images, (images,), {"": (images, masks)})
    if listed:
        return plain
    every = {split: (_first(images, names), _first(masks, names)) for split, names in SPLITS.items()}
    if folders := _splits(every, least=2):
        return plain._replace(folders=folders)
    unlabelled = every["val"][0]
    if unlabelled.is_dir() and (folders := _splits({"train": every["train"]}, least=1)):
        return plain._replace(folders=folders, unlabelled=unlabelled)
    if any(folder.is_dir() for _, folder in every.values()) or not every["train"][0].is_dir():
        return plain
    for path in images.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            return plain
    below = {split: folder for split, (folder, _) in every.items() if folder.is_dir()}
    if "val" not in below:  # it is a share of the images of train
        del below["train"]
    return plain._replace(lists=below)  # the masks of all splits are in one folder


def _without_images(root: Path, listed: bool) -> FolderLayout:
    """As `_layout`, of a folder that holds none for all images: one for each split, or masks beside their images."""
    below = {split: _first(root, names) for split, names in SPLITS.items()}
    inside = {split: (_first(folder, IMAGE_FOLDERS), _first(folder, MASKS)) for split, folder in below.items()}
    joint = {split: (_joint(root, split, IMAGE_FOLDERS), _joint(root, split, MASKS)) for split in SPLITS}
    for split, (images, masks) in joint.items():  # or train beside train_masks
        joint[split] = images if images.is_dir() else below[split], masks
    for every in (inside, joint):
        if folders := _splits(every, least=1):
            return FolderLayout(root, tuple(folder for folder, _ in every.values()), folders)
    if layout := _beside(root, listed):
        return layout
    raise CrispsegError(
        f"{root} has no layout that is known: it may hold images and masks, train/images and "
        "train/masks, train_images and train_masks, masks such as a_mask.png next to a.jpg, or a public "
        "data set; or give data.images DIR and data.masks DIR" + annotated(root)
    )


def _first(root: Path, names: tuple[str, ...]) -> Path:
    """The folder of one of these names, in any case, that is there; else that of the first name."""
    there = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    return next((there[name] for name in names if name in there), root / names[0])


def _beside(root: Path, listed: bool) -> FolderLayout | None:
    """As `_layout`, of masks beside their images, in folders of splits or without; None where none are."""
    below = {split: _first(root, names) for split, names in SPLITS.items()}
    if not listed and (folders := {split: (one, one) for split, one in below.items() if holds_both(one)}):
        unlabelled = below["val"] if below["val"].is_dir() and "val" not in folders else None
        return FolderLayout(root, tuple(below[split] for split in folders), folders, unlabelled=unlabelled)
    return FolderLayout(root, (root,), {"": (root, root)}) if holds_both(root) else None


def _joint(root: Path, split: str, kinds: tuple[str, ...]) -> Path:
    """The folder of a split and a kind, such as train_images or imagesTr, as `_first`."""
    names = SPLITS[split] + SHORT[split]
    pairs = [pair for name in names for kind in kinds for pair in ((name, kind), (kind, name))]
    return _first(root, tuple(gap.join(pair) for gap in ("_", "") for pair in pairs))


def _splits(folders: Folders, least: int) -> Folders:
    """The splits, unless fewer than `least` of them have both folders; with one of the two missing, but for test.

    Images to test on may have no masks. The folder that is missing elsewhere is named when it is read.
    """
    if sum(images.is_dir() and masks.is_dir() for images, masks in folders.values()) < least:
        return {}
    return {
        split: (images, masks)
        for split, (images, masks) in folders.items()
        if masks.is_dir() or (images.is_dir() and split != "test")
    }
