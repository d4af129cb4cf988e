"""Splits: names of folders that mean train, val or test, lists of images, and random parts."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from crispseg.config.settings import plural
from crispseg.errors import CrispsegError
from crispseg.folders.names import read_lines
from crispseg.io.images import SUFFIXES

SPLITS = {
    "train": ("train", "training", "train2017", "tr", "trn", "trainval", "train_val"),
    "val": ("val", "valid", "validation", "dev", "val2017"),
    "test": ("test", "testing", "test2017", "ts", "tst"),
}
"""Folder names of each split, including those of COCO and nnU-Net."""
SPLIT_OF: dict[str, str] = {}
for _split, _words in SPLITS.items():
    SPLIT_OF |= dict.fromkeys(_words, _split)
LONG_WORDS = [word for word in SPLIT_OF if len(word) > 2]

_AROUND = re.compile(r"^(\d+|[a-z])[._) -]+(?=\D)|[_ -](set|data|dataset|split|v\d+)$", re.IGNORECASE)
"""Text around a split, as in "a. Training Set"."""
_AT_END = re.compile(rf"(?P<place>.+)[-_ ](?P<split>{'|'.join(LONG_WORDS)})", re.IGNORECASE)
"""A split at the end of a name, as in berlin_train."""

Files = Mapping[Path, str]  # file → name: its path in the folder of images or of masks, without suffix


def split_of(folder: str) -> str:
    """Return the split that a folder name means; empty if it means none."""
    return SPLIT_OF.get(_AROUND.sub("", folder).lower(), "")


def by_split(files: Files, levels: int) -> dict[str, dict[Path, str]]:
    """Return files by the split in the first `levels` folders of their names; "" for no split.

    The names omit the split. A split at the end of a folder's name counts if train is among them.
    """
    folders = set[str]().union(*(name.split("/")[:-1][:levels] for name in files.values()))
    parts = {folder: place_and_split(folder) for folder in folders}
    at_end = {split for place, split in parts.values() if place}
    if "train" not in at_end or len(at_end) < 2:  # as blood_test and urine_test
        parts = {folder: ("", split_of(folder)) for folder in folders}
    splits: dict[str, dict[Path, str]] = defaultdict(dict)
    for file, name in files.items():
        split, name_inside = _divided_name(name, levels, parts)
        splits[split][file] = name_inside
    return dict(splits)


def place_and_split(folder: str) -> tuple[str, str]:
    """Return the parts of a folder name such as berlin_train, or of train; without a split, the second is empty."""
    split = split_of(folder)
    match = _AT_END.fullmatch(_AROUND.sub("", folder))
    if split or match is None:  # train_val is a split itself
        return "", split
    return match["place"], SPLIT_OF[match["split"].lower()]


def _divided_name(name: str, levels: int, parts: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Return the split in a name, or "", and the name without it."""
    *folders, stem = name.split("/")
    for index, folder in enumerate(folders[:levels]):
        place, split = parts[folder]
        if split:
            folders[index] = place
            return split, "/".join(filter(None, [*folders, stem]))
    return "", name


AFTER_NAME = re.compile(r"(?<=\S)(?:\s+-?\d+)+$|(?:(?<=\.\w{3})|(?<=\.\w{4}))\s+\S+\.\w{3,4}$")
"""Numbers, or the file of the mask, after the name of an image in a list."""


class ImageNames:
    """Image names that lines of a list may mean.

    A line is a name or file name, with or without its folders, or a folder of images, such as the frames of a video.
    Unknown leading folders, and numbers or the file of the mask after a name, are ignored.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: dict[str, set[str]] = defaultdict(set)  # name or folder → names
        for name in names:
            for place in [name, *map(str, PurePosixPath(name).parents)][:-1]:
                self.names[place].add(name)
        self.ends: dict[str, list[str]] = defaultdict(list)  # last part of a name or folder → names and folders
        for place in self.names:
            self.ends[PurePosixPath(place).name].append(place)

    def meant(self, line: str) -> set[str]:
        """Return the names that a line means; empty if they are unknown or ambiguous."""
        return self._meant(line) or self._meant(AFTER_NAME.sub("", line))

    def _meant(self, line: str) -> set[str]:
        entry = PurePosixPath(unicodedata.normalize("NFC", line).replace("\\", "/"))
        stem = entry.with_suffix("") if entry.suffix.lower() in SUFFIXES else entry
        for start in range(len(stem.parts)):
            if names := self.names.get("/".join(stem.parts[start:])):
                return names
        places = self.ends.get(str(stem), [])
        return self.names[places[0]] if len(places) == 1 else set()


def chosen_names(path: Path, names: Sequence[str], unpaired: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the image names in a list file, see `ImageNames`, and its entries that match no image or several.

    Files without a partner, the `unpaired`, are left out. Errors are those of `read_lines`.
    """
    known = ImageNames({*names, *unpaired})
    meant = {line: known.meant(line) for line in read_lines(path)}
    chosen = set[str]().union(*meant.values())
    return sorted(chosen.difference(unpaired)), [line for line, images in meant.items() if not images]


def shared_out(names: Sequence[str], ratio: float, seed: int, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Divide names randomly into train and val; unless the ratio is 0 or 1, neither is empty.

    Args:
        groups: group of each name; a group stays in one split.
    """
    count = round(ratio * len(names))
    if 0 < ratio < 1:
        count = max(min(max(count, 1), len(names) - 1), 0)
    val: list[str] = []
    units = shuffled_groups(names, seed, groups)
    for unit in units:
        size = len(val) + len(unit)
        if abs(size - count) < abs(len(val) - count) and (size < len(names) or ratio == 1):
            val += unit
    if count and len(units) > 1 and not val:  # all are too large
        val = min(units, key=len)
    return train_and_val(names, val)


def folded(names: Sequence[str], folds: int, fold: int, seed: int, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Divide names randomly into parts of about equal size; part number `fold`, counted from 1, is val.

    See `shared_out` for `groups`; fewer groups than parts raise a `CrispsegError`.
    """
    units = shuffled_groups(names, seed, groups)
    if len(units) < folds:
        noun = "image" if len(units) == len(names) else "group"
        raise CrispsegError(f"data.folds is {folds}, but there are {plural(len(units), noun)}; give fewer folds")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for unit in sorted(units, key=len, reverse=True):
        min(parts, key=len).extend(unit)
    return train_and_val(names, parts[fold - 1])


def shuffled_groups(names: Sequence[str], seed: int, groups: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of names in random order."""
    units: dict[str, list[str]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(names)):
        units[groups[names[index]]].append(names[index])
    return [*units.values()]


def train_and_val(names: Sequence[str], val: Collection[str]) -> dict[str, list[str]]:
    """Return the names outside and inside val."""
    chosen = {*val}
    return {"train": [name for name in names if name not in chosen], "val": sorted(chosen)}
