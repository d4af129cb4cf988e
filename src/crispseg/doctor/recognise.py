"""From a plain path to the data in it: a run, a YAML file, a public data set's layout or folders of own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crispseg.data.base import DataSource
from crispseg.data.catalogue import catalogue
from crispseg.data.folder import Folder, SplitFolders
from crispseg.errors import CrispsegError

IMAGES = ("images", "image", "imgs", "img", "photos")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "gt", "segmentations")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class Recognised:
    """Settings for `--data.*`, and folders of splits that these cannot say."""

    data: Mapping[str, Any]
    folders: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    """Split → folder of images, folder of masks."""

    def source(self, parsed: DataSource) -> DataSource:
        """The data source that came of the settings and further flags, with the folders unless they do not fit."""
        if not self.folders or not isinstance(parsed, Folder) or str(parsed.images) != self.data.get("images"):
            return parsed
        return SplitFolders(**vars(parsed), folders=self.folders)


def recognise(root: Path) -> Recognised:
    """The data in a folder.

    Raises:
        CrispsegError: it is none, or has no known layout.
    """
    if not root.is_dir():
        raise CrispsegError(
            f"{root} is {'not a folder' if root.exists() else 'missing'}; give a folder of data, a run, a YAML file or "
            "--data with its keys"
        )
    for entry in catalogue().values():
        for mark in entry.layout.marks if entry.layout else ():
            if all(any(root.glob(path)) for path in mark["holds"]):
                return Recognised({"name": entry.name, "root": str(root), **mark.get("keys", {})})
    declared = {"classes": str(root / "classes.txt")} if (root / "classes.txt").is_file() else {}
    images, masks = _first(root, IMAGES), _first(root, MASKS)
    if images.is_dir() and masks.is_dir():
        folders = {split: (_first(images, names), _first(masks, names)) for split, names in SPLITS.items()}
        lists = {f"{split}_list": str(path) for split in ("train", "val") if (path := root / f"{split}.txt").is_file()}
        data = {"name": "folder", "images": str(images), "masks": str(masks), **declared, **lists}
        return Recognised(data, _splits(folders, 2))
    below = {split: _first(root, names) for split, names in SPLITS.items()}
    folders = {split: (_first(folder, IMAGES), _first(folder, MASKS)) for split, folder in below.items()}
    if folders := _splits(folders, 1):
        images, masks = next(pair for pair in folders.values() if _both(pair))
        return Recognised({"name": "folder", "images": str(images), "masks": str(masks), **declared}, folders)
    raise CrispsegError(
        f"{root} has no layout that is known: it may hold {IMAGES[0]} and {MASKS[0]}, train/{IMAGES[0]} and "
        f"train/{MASKS[0]}, or a public data set; or give --data folder --data.images DIR --data.masks DIR"
    )


def _first(root: Path, names: tuple[str, ...]) -> Path:
    """The folder of one of these names that is there, else that of the first name."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def _both(pair: tuple[Path, Path]) -> bool:
    return all(folder.is_dir() for folder in pair)


def _splits(folders: Mapping[str, tuple[Path, Path]], least: int) -> dict[str, tuple[Path, Path]]:
    """The splits, unless fewer than `least` of them have both folders; with one of the two missing, but for test.

    Images to test on may have no masks. The folder that is missing elsewhere is named when it is read.
    """
    if sum(map(_both, folders.values())) < least:
        return {}
    return {
        split: (images, masks)
        for split, (images, masks) in folders.items()
        if masks.is_dir() or (images.is_dir() and split != "test")
    }
