"""What a folder contains, by the names in it, and what text files declare: names of images and classes, and colours."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from crispseg.data.catalogue import catalogue
from crispseg.data.dataset import read_lines
from crispseg.data.pairing import annotated, holds_both
from crispseg.errors import CrispsegError
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES
from crispseg.labels import Color


def chosen_names(path: Path, names: Sequence[str], unpaired: Collection[str]) -> tuple[list[str], list[str]]:
    """The names that a list file means, given as names or file names, with or without their sub-folder.

    Folders in front that are none of the data's do not count. Files without a partner, the `unpaired`, are left out.
    Entries that name no image, or more than one, are returned too. Raises as `read_lines`.
    """
    full = {*names, *unpaired}
    stems = Counter(PurePosixPath(name).name for name in full)
    known = {PurePosixPath(name).name: name for name in full} | {name: name for name in full}
    known = {key: name for key, name in known.items() if key in full or stems[key] == 1}
    chosen, unknown = set(), []
    for line in read_lines(path):
        entry = PurePosixPath(unicodedata.normalize("NFC", line).replace("\\", "/"))
        plain = entry.with_suffix("") if entry.suffix.lower() in SUFFIXES else entry
        whole = [key for key in map(str, (entry, plain)) if key in known]
        behind = ["/".join(one.parts[start:]) for start in range(1, len(entry.parts)) for one in (entry, plain)]
        if found := [*whole, *(key for key in behind if key in full)]:
            chosen.add(known[found[0]])
        else:
            unknown.append(line)
    return sorted(chosen.difference(unpaired)), unknown


def read_palette(path: Path) -> tuple[tuple[Color, ...], tuple[str, ...] | None]:
    """Lines "r g b name" → colours, and names where all lines have one.

    Raises:
        CrispsegError: a line is none, or the file cannot be read.
    """
    colors, names = [], []
    for line in read_lines(path):
        if not (found := re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(\S.*))?", line)):
            raise CrispsegError(f"{path}: '{line}' is not 'r g b name'; write for example '128 64 128 road'")
        colors.append((int(found[1]), int(found[2]), int(found[3])))
        names.append(found[4])
    return tuple(colors), tuple(names) if all(names) else None


def as_color(value: int | Color) -> Color:
    """A grey value v is the colour (v, v, v).

    Raises:
        CrispsegError: it is no colour.
    """
    color = (value, value, value) if isinstance(value, int) else value
    if not all(0 <= level <= 255 for level in color):
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
SHORT = {"train": "tr", "val": "val", "test": "ts"}
"""What nnU-Net calls them, in names such as imagesTr."""

Folders = Mapping[str, tuple[Path, Path]]
"""Split → folder of images, folder of masks; "" for the images of all splits."""


class FolderLayout(NamedTuple):
    """Where own data lie."""

    top: Path
    """The folder that holds all images, and perhaps more."""
    folders: Folders
    lists: Mapping[str, Path] = MappingProxyType({})
    """Split → file that names its images, or folder that holds them where the masks of all splits lie in one."""
    classes: Path | None = None
    """File of the names of the classes."""

    @property
    def divided(self) -> bool:
        """Whether the folders, of images and masks both, are the splits."""
        return not self.lists and "" not in self.folders


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
        for mark in entry.layout.marks:
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
    told = masks is not None
    if root is not None:
        images, masks = images or _first(root, IMAGE_FOLDERS), masks or _first(root, MASKS)
    assert images is not None and masks is not None
    layout = None
    if images != masks and images.is_dir() and masks.is_dir():
        layout = _in_two_folders(images, masks, bool(lists))
    elif root is not None and not images.is_dir() and not told and (found := _of_splits(root)):
        layout = found
    elif images == masks or not told:
        layout = _beside(images if images.is_dir() or root is None else root, bool(lists))
    if layout is None and root is None:
        layout = FolderLayout(images, {"": (images, masks)})  # one is missing, as reading them says
    if layout is None:
        what = "holds images, but no masks" if images.is_dir() else "has no layout that is known"
        raise CrispsegError(
            f"{root} {what}: it may hold images and masks, train/images and train/masks, train_images and train_masks, "
            "masks such as a_mask.png next to a.jpg, or a public data set; or give data.images DIR and data.masks DIR"
            + (annotated(images) or annotated(images if root is None else root))
        )
    classes, found_lists = None, dict(lists)
    if root is not None:
        classes = root / "classes.txt" if (root / "classes.txt").is_file() else None
        found_lists = {split: path for split in SPLITS if (path := root / f"{split}.txt").is_file()} | found_lists
    return layout._replace(lists=(layout.lists or found_lists) if "" in layout.folders else lists, classes=classes)


def _in_two_folders(images: Path, masks: Path, listed: bool) -> FolderLayout:
    """As `own_layout`, of images and masks in one folder each, which may hold folders of splits."""
    plain = FolderLayout(images, {"": (images, masks)})
    if listed:
        return plain
    every = {split: (_first(images, names), _first(masks, names)) for split, names in SPLITS.items()}
    if sum(image.is_dir() and mask.is_dir() for image, mask in every.values()) > 1:
        return plain._replace(folders=_there(every))
    if any(mask.is_dir() for _, mask in every.values()) or not every["train"][0].is_dir():
        return plain
    if any(path.suffix.lower() in SUFFIXES and not path.name.startswith(".") for path in images.iterdir()):
        return plain
    below = {split: folder for split, (folder, _) in every.items() if folder.is_dir()}
    if "val" not in below:  # it is a share of the images of train
        del below["train"]
    return plain._replace(lists=below)  # the masks of all splits are in one folder


def _of_splits(root: Path) -> FolderLayout | None:
    """As `own_layout`, of folders such as train/images and train/masks, or train_images and train_masks."""
    every = {}
    for split, names in SPLITS.items():
        images, masks = _place(root, split, IMAGE_FOLDERS), _place(root, split, MASKS)
        every[split] = images if images.is_dir() else _first(root, names), masks  # or train beside train_masks
    there = any(images.is_dir() and masks.is_dir() for images, masks in every.values())
    return FolderLayout(root, _there(every)) if there else None


def _beside(root: Path, listed: bool) -> FolderLayout | None:
    """As `own_layout`, of masks beside their images, in folders of splits or without; None where none are."""
    below = {split: _first(root, names) for split, names in SPLITS.items()}
    if not listed and (folders := {split: (one, one) for split, one in below.items() if holds_both(one)}):
        return FolderLayout(root, folders)
    return FolderLayout(root, {"": (root, root)}) if holds_both(root) else None


def _first(root: Path, names: tuple[str, ...]) -> Path:
    """The folder of one of these names, in any case, that is there; else that of the first name."""
    there = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    return next((there[name] for name in names if name in there), root / names[0])


def _place(root: Path, split: str, kinds: tuple[str, ...]) -> Path:
    """The folder of a split and a kind, such as train/images, train_images or imagesTr, as `_first`."""
    pairs = [pair for name in (*SPLITS[split], SHORT[split]) for kind in kinds for pair in ((name, kind), (kind, name))]
    joint = _first(root, tuple(gap.join(pair) for gap in ("_", "") for pair in pairs))
    return joint if joint.is_dir() else _first(_first(root, SPLITS[split]), kinds)


def _there(folders: Folders) -> Folders:
    """The splits that have a folder; the one that is missing of two is named when it is read.

    Images to test on may have no masks.
    """
    return {
        split: (images, masks)
        for split, (images, masks) in folders.items()
        if masks.is_dir() or (images.is_dir() and split != "test")
    }
