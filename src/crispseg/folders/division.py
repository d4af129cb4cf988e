"""Pairs of images and masks by split: from folders, from lists, or all together."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from crispseg.folders.layouts import Located
from crispseg.folders.pairs import Pairing, pair_up
from crispseg.folders.splits import SPLITS, by_split
from crispseg.folders.survey import Pair


@dataclass(frozen=True)
class Division:
    """Pairs by split."""

    pairings: Mapping[str, Pairing]  # split → pairs, if folders of images and masks are splits; otherwise "" → pairs
    split_folders: Mapping[str, Path] = field(default_factory=dict)  # split → folder of its images
    names: Mapping[Path, str] = field(default_factory=dict)  # image → path in its folder or split, without suffix
    outside: tuple[Pair, ...] = ()  # pairs in no split

    @property
    def by_folders(self) -> bool:
        """Whether folders of both images and masks are the splits."""
        return "" not in self.pairings

    @property
    def pairs(self) -> dict[str, Pair]:
        """All pairs by name; the split is the first part of the name if folders are the splits."""
        pairs: dict[str, Pair] = {}
        for split, pairing in self.pairings.items():
            pairs |= {f"{split}/{name}" if split else name: pair for name, pair in pairing.pairs.items()}
        return pairs


def divide(located: Located, follow_folders: bool = True) -> Division:
    """Pair images and masks, in each split if folders are the splits."""
    pairing = pair_up(located.image_of, located.mask_of, located.images, located.masks)
    everything = Division({"": pairing}, names=located.image_of)
    if not follow_folders:
        return everything
    images, masks = by_split(located.image_of, located.levels), by_split(located.mask_of, located.levels)
    shared = images.keys() & masks.keys() - {""}
    if len(shared) > 1 or (shared and "" not in masks):
        return by_folders_of_both(located, images, masks)
    used = shared & {"test"}
    if masks.keys() == {""} and "train" in images and "" not in images:  # one folder of masks for all splits
        used = images.keys() & (SPLITS if "val" in images else {"test"})  # otherwise val is a share of train
    return replace(everything, split_folders={split: common_folder(images[split]) for split in SPLITS if split in used})


def by_folders_of_both(
    located: Located, images: Mapping[str, Mapping[Path, str]], masks: Mapping[str, Mapping[Path, str]]
) -> Division:
    """Return the pairs of each split; test images may have no masks, and in a shared folder those of any split."""
    needed = set() if located.images == located.masks else images.keys() - {"test"}
    splits = [split for split in SPLITS if split in masks.keys() | needed]
    places = located.images, located.masks
    pairings = {split: pair_up(images.get(split, {}), masks.get(split, {}), *places) for split in splits}
    outside = pair_up(images.get("", {}), masks.get("", {}), *places).pairs
    names = dict(ChainMap(*map(dict, images.values())))
    folders = {split: common_folder(images.get(split) or masks[split]) for split in splits}
    return Division(pairings, folders, names, tuple(outside.values()))


def common_folder(files: Mapping[Path, str]) -> Path:
    """Return the innermost folder that contains all files."""
    return Path(os.path.commonpath([file.parent for file in files]))
