"""Pairs of images and masks, and the splits that their folders define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.folders.layouts import Located
from crispseg.folders.pairs import Pairing, joined, pair_up
from crispseg.folders.splits import SPLITS, Files, by_split
from crispseg.folders.survey import Pair


@dataclass(frozen=True)
class Division:
    """Pairs, and those of each split if folders are the splits."""

    pairing: Pairing
    places: Files  # image → path in its folder or split, without suffix
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)  # split → names of its pairs
    by_folders: bool = False  # whether folders of both images and masks are the splits; names then begin with the split
    outside: tuple[Pair, ...] = ()  # pairs in no split


def divide(located: Located, follow_folders: bool = True) -> Division:
    """Pair images and masks, in each split if folders are the splits."""
    levels = located.levels if follow_folders else 0
    images, masks = by_split(located.image_of, levels), by_split(located.mask_of, levels)
    shared = images.keys() & masks.keys() - {""}
    if len(shared) > 1 or (shared and "" not in masks):
        return by_folders_of_both(located, images, masks)
    pairing = pair_up(located.image_of, located.mask_of, located.images, located.masks)
    splits = {}
    for split in splits_of_images(images, masks):
        splits[split] = [name for name, pair in pairing.pairs.items() if pair.image in images[split]]
    return Division(pairing, located.image_of, splits)


def splits_of_images(images: Mapping[str, Files], masks: Mapping[str, Files]) -> list[str]:
    """Return the splits that the folders of images define, although those of masks do not."""
    used = images.keys() & masks.keys() & {"test"}
    if masks.keys() == {""} and "train" in images and "" not in images:  # one folder of masks for all splits
        used = images.keys() & (SPLITS if "val" in images else {"test"})  # otherwise val is a share of train
    return [split for split in SPLITS if split in used]


def by_folders_of_both(located: Located, images: Mapping[str, Files], masks: Mapping[str, Files]) -> Division:
    """Return the pairs of each split; test images may have no masks, and in a shared folder those of any split."""
    needed = set() if located.images == located.masks else images.keys() - {"test"}
    splits = [split for split in SPLITS if split in masks.keys() | needed]
    where = located.images, located.masks
    places: dict[Path, str] = {}
    for inside in images.values():
        places |= inside
    parts = {split: pair_up(images.get(split, {}), masks.get(split, {}), *where) for split in ("", *splits)}
    outside = parts.pop("").pairs
    names = {}
    for split, part in parts.items():
        names[split] = [f"{split}/{name}" for name in part.pairs]
    return Division(joined(parts, *where), places, names, by_folders=True, outside=tuple(outside.values()))
