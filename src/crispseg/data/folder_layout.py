"""What a folder contains, by the names in it, and what text files declare: names of images."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from crispseg.data.catalogue import catalogue
from crispseg.data.dataset import read_lines
from crispseg.data.folder_search import MASK_FOLDERS, SPLITS, Reading, described, readings, settings, single_classes
from crispseg.data.pairing import annotated, few, holds_both, is_pattern, pictures
from crispseg.errors import CrispsegError
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES


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


SHORT = {"train": "tr", "val": "val", "test": "ts"}
"""What nnU-Net calls them, in names such as imagesTr."""

LEGEND = re.compile(r".*(legend|label|class|colou?r).*\.(txt|csv|json|ya?ml)", re.IGNORECASE)
"""Names of files that may name classes."""
CVAT_LIST = "ImageSets/Segmentation/default.txt"

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
    only: Path | None = None
    """CVAT's list of the images that are annotated."""
    legend: str = ""
    """Which files may say what masks mean, and what to do with them."""

    @property
    def divided(self) -> bool:
        """Whether the folders, of images and masks both, are the splits."""
        return not self.lists and "" not in self.folders


def recognise(root: Path, given: Collection[str] = ()) -> dict[str, Any]:
    """The settings of `data.*` for what lies in a folder; `given` are further ones, which may say where masks are.

    Raises:
        CrispsegError: it is none, holds nothing in a known layout, or several masks of the same images.
    """
    if not root.is_dir():
        what = "not a folder" if root.exists() else "missing"
        raise CrispsegError(f"{root} is {what}; give a folder of data, a run, a YAML file or data.name with its keys")
    for entry in catalogue().values():
        for mark in entry.layout.marks:
            if all(any(root.glob(path)) for path in mark["holds"]):
                return {"name": entry.name, "root": str(root), **mark.get("keys", {})}
    chosen = {"images", "masks", "instances"} & {key.removeprefix("data.") for key in given}
    if not chosen and (several := rivals(root, own_layout(root))):
        folders = ", ".join(dict.fromkeys(str(place.path) for one in several for place in one))
        remedy = "give one of each as data.images and data.masks"
        raise CrispsegError(f"{root} may mean several images or masks: {folders}; {remedy}", settings=settings(several))
    return {"name": "folder", "root": str(root)}


def rivals(root: Path, layout: FolderLayout) -> list[Reading]:
    """The readings of a folder if images have other masks too, or masks other images in a folder of a usual name."""
    there = [both for both in layout.folders.values() if both[0] != both[1] and all(map(Path.is_dir, both))]
    images, masks = ({file for both in there for file in pictures(both[side])} for side in (0, 1))
    every = readings(root) if there else []
    same = [(images.isdisjoint(one.files), masks.isdisjoint(other.files), one.usual) for one, other in every]
    return every if any(image < mask or (mask < image and usual) for image, mask, usual in same) else []


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
    told, patterns = masks is not None, [place for place in (images, masks) if place is not None and is_pattern(place)]
    if root is not None:
        images, masks = images or _first(root, IMAGE_FOLDERS), masks or _first(root, MASK_FOLDERS)
    assert images is not None and masks is not None
    layout = None
    if patterns:
        layout = _of_patterns(images, masks, bool(lists))
    elif images != masks and images.is_dir() and masks.is_dir():
        layout = _in_two_folders(images, masks, bool(lists))
    elif root is not None and not told and (found := _of_splits(root)):
        layout = found
    elif images == masks or not told:
        layout = _beside(images if images.is_dir() or root is None else root, bool(lists))
    if layout is None and root is not None and not told:
        layout = _below(root, images, bool(lists))
    layout = layout or FolderLayout(images, {"": (images, masks)})  # one is missing, as reading them says
    classes, found_lists = None, dict(lists)
    only = annotated_list if (annotated_list := layout.top.parent / CVAT_LIST).is_file() else None
    if root is not None:
        classes = root / "classes.txt" if (root / "classes.txt").is_file() else None
        found_lists = {split: path for split in SPLITS if (path := root / f"{split}.txt").is_file()} | found_lists
    lists = (layout.lists or found_lists) if "" in layout.folders else lists
    return layout._replace(lists=lists, classes=classes, only=only, legend=_legend(root or layout.top.parent))


def _legend(root: Path) -> str:
    names = [path.name for path in sorted(root.iterdir())] if root.is_dir() else []
    found = [str(root / name) for name in names if LEGEND.fullmatch(name) and name != "classes.txt"]
    means = "may say what the masks mean: give the names by data.classes or data.palette"
    return f"{few(found)} {means}, and values without a label, such as 0, by data.ignore" if found else ""


def _below(root: Path, images: Path, listed: bool) -> FolderLayout:
    """As `own_layout`, of dataset1/rgb and dataset1/label, say, if these names are usual and nothing else pairs."""
    found = readings(root)
    if len(found) == 1 and all(place.usual for place in found[0]):
        layout = _of_patterns(found[0][0].path, found[0][1].path, listed)
        stems = [file.stem for file in found[0][0].files]
        if layout.divided or len({*stems}) == len(stems):  # else one may be a copy of the other
            return layout
    what = "holds images, but no masks" if images.is_dir() else "has no layout that is known"
    holds = described(root) or "no images"
    remedy = (
        "images and masks may be in images and masks, train/images and train/masks, train_images and train_masks, or "
        "a_mask.png next to a.jpg; or give data.images and data.masks, which may be patterns such as x/*_t1.tif and "
        "x/*_seg.tif; if an image has several masks, merge them"
    )
    if found and (several := single_classes(*found[0])):
        remedy, found = f"masks of one class each may be in {few(several, 12)}: merge those of each image", []
    elif found:
        remedy = f"give data.images and data.masks, such as {found[0][0].path} and {found[0][1].path}"
    raise CrispsegError(
        f"{root} {what}; it holds {holds}; {remedy}{'' if found else annotated(images) or annotated(root)}",
        settings=settings(found),
    )


def _of_patterns(images: Path, masks: Path, listed: bool) -> FolderLayout:
    """As `own_layout`, of patterns, one of whose wildcards may stand for the names of splits."""
    every: Folders = {"": (images, masks)}
    for at, wild in enumerate(images.parts):
        names = {Path(path).parts[at] for path in glob.glob(str(images))} if glob.has_magic(wild) else ()  # noqa: PTH207
        usual = {split: name for split, known in SPLITS.items() for name in names if name.lower() in known}
        if "train" in usual and not listed:
            every = {split: (_filled(images, at, name), _filled(masks, at, name)) for split, name in usual.items()}
    return FolderLayout(images, {split: both for split, both in every.items() if split != "test" or pictures(both[1])})


def _filled(pattern: Path, at: int, name: str) -> Path:
    parts = [
        glob.escape(name) if index == at and glob.has_magic(part) else part for index, part in enumerate(pattern.parts)
    ]
    return Path(*parts)


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
        images, masks = _place(root, split, IMAGE_FOLDERS), _place(root, split, MASK_FOLDERS)
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
