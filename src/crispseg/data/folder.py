"""Own data without code: a folder of images and a folder of masks with the same names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np

from crispseg.data.base import FileDataset, Pair, read_lines
from crispseg.data.check import BLACK_AND_WHITE, parallel
from crispseg.data.decoders import ColorDecoder, Decoder, IdDecoder, grey
from crispseg.data.pairing import few, match, pairing_fault
from crispseg.errors import CrispsegError
from crispseg.imaging import SUFFIXES, find_images, read_mask
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.value_range import check_range

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Folder:
    """Images in one folder, masks of the same names in another, sub-folders included.

    `x.jpg` belongs to `x.png`, or to `x_mask.png`, `x_label.png`, `x_gt.png`, `x_seg.png` or `x_L.png`. The values of
    a mask are class ids and 255 means ignore, unless a palette says which colours mean the classes. A grey value v
    and the colour (v, v, v) are the same.

    Args:
        images: folder of images.
        masks: folder of masks.
        classes: names of the classes in the order of their ids, as a list or as a text file with one name a line.
        num_classes: number of classes, where they have no names. Without any of classes, num_classes and palette it
            is read off the masks.
        palette: the colour that means each class, [r, g, b] of 0 to 255, as a list or as a text file with a line
            "r g b name" for each class.
        val_ratio: share of the pairs that are kept for validation.
        seed: chooses which pairs these are.
        train_list: text file with the names of the images to train on, instead of a share.
        val_list: text file with the names of the images to validate on. With one list the other split is the rest.
        folds: divide the images of both splits anew, into so many parts of equal size; for cross-validation.
        fold: which of the parts is the val split, 1 to folds; the others are the train split.
        ignore: further mask values, or [r, g, b] colours, that mean ignore.
        value_range: the values of images of 16 bits a channel that are black and white, such as [0, 4095]; auto
            measures them.
    """

    images: str | Path
    masks: str | Path
    classes: list[str] | str | Path | None = None
    num_classes: int | None = None
    palette: list[Color] | str | Path | None = None
    val_ratio: float = 0.2
    seed: int = 0
    train_list: str | Path | None = None
    val_list: str | Path | None = None
    folds: int | None = None
    fold: int = 1
    ignore: tuple[int | Color, ...] = ()
    value_range: tuple[float, float] | Literal["auto"] = "auto"
    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        if not 0 < self.val_ratio < 1:
            raise CrispsegError(f"data.val_ratio is {self.val_ratio}; give a share between 0 and 1, such as 0.2")
        if self.folds is not None and self.folds < 2:
            raise CrispsegError(f"data.folds is {self.folds}; give 2 or more")
        if not 1 <= self.fold <= (self.folds or 1):
            raise CrispsegError(f"data.fold is {self.fold}; give 1 to {self.folds or 1}, the number of data.folds")
        for value in self.ignore:
            if isinstance(value, int) and not 0 <= value <= 0xFFFF:
                raise CrispsegError(f"data.ignore holds {value}; mask values are 0 to 65535")
        if self.value_range != "auto":
            check_range(self.value_range, "data.value_range")

    def label_set(self) -> LabelSet:
        """Names and colours of the classes.

        Raises:
            CrispsegError: what is declared does not fit together, or nothing is and the masks do not tell.
        """
        return self._labels

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def dataset(self, split: str) -> FileDataset:
        """One split: by the lists, or by shuffling the sorted names with the seed.

        Raises:
            CrispsegError: no such split, files without a partner, or a list that does not fit.
        """
        declared = None if self.value_range == "auto" else self.value_range
        return FileDataset(self.pairs(split), self._labels, self._decoder, value_range=declared)

    def pairs(self, split: str) -> list[Pair]:
        """The files of one split, whatever their masks hold. Raises as `dataset` does."""
        if split not in SPLITS:
            raise CrispsegError(f"there is no split '{split}' in a folder of images; it has {', '.join(SPLITS)}")
        return [self._pairs[name] for name in self._divided[split]]

    def unlisted(self) -> list[Path]:
        """The images of pairs that no split has, since neither list names them. Raises as `dataset` does."""
        listed = set().union(*self._divided.values())
        return [pair.image for name, pair in self._pairs.items() if name not in listed]

    def declared(self) -> tuple[LabelSet, Decoder] | None:
        """Classes and decoder, or None where they have to be read off the masks.

        Raises:
            CrispsegError: what is declared does not fit together.
        """
        if self.classes is None and self.num_classes is None and self.palette is None:
            return None
        return self._labels, self._decoder

    @cached_property
    def _pairs(self) -> dict[str, Pair]:
        return match(Path(self.images), Path(self.masks))

    @cached_property
    def _divided(self) -> dict[str, list[str]]:
        """The names of each split, with folds those of the fold: shuffled by the seed, every `folds`-th is val."""
        if self.folds is None:
            return self._names
        every = sorted(set().union(*self._names.values()))
        if len(every) < self.folds:
            raise CrispsegError(f"data.folds is {self.folds}, but there are {len(every)} images; give {len(every)}")
        order = np.random.default_rng(self.seed).permutation(len(every))
        val = {every[index] for index in order[self.fold - 1 :: self.folds]}
        return {"train": [name for name in every if name not in val], "val": sorted(val)}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The names of each split."""
        every = list(self._pairs)
        given = {
            split: _chosen(Path(path), every)
            for split, path in zip(SPLITS, (self.train_list, self.val_list), strict=True)
            if path is not None
        }
        if not given:
            if len(every) < 2:
                raise CrispsegError(f"{self.images} holds one image; two or more are needed, to train and to validate")
            order = np.random.default_rng(self.seed).permutation(len(every))
            count = min(max(round(self.val_ratio * len(every)), 1), len(every) - 1)
            given["val"] = sorted(every[index] for index in order[:count])
        for split, other in (SPLITS, SPLITS[::-1]):
            if other not in given:
                given[other] = sorted(set(every) - set(given[split]))
                if not given[other]:
                    raise CrispsegError(
                        f"the list of '{split}' names all images, so '{other}' is empty; shorten the list"
                    )
        if both := sorted(set(given["train"]) & set(given["val"])):
            pairing_fault(
                f"{len(both)} images stand in both {self.train_list} and {self.val_list}: {few(both)}; "
                "validate on images that are not trained on"
            )  # where faults are collected, equal images in two splits are found anyway
        return given

    @cached_property
    def _colors(self) -> tuple[tuple[Color, ...], tuple[str, ...] | None] | None:
        """The palette, and the names that its file gives."""
        if self.palette is None:
            return None
        if isinstance(self.palette, (str, Path)):
            colors, names = _read_palette(Path(self.palette))
        else:
            colors, names = tuple(_as_color(color) for color in self.palette), None
        if twice := [list(color) for color in colors if colors.count(color) > 1]:
            raise CrispsegError(f"data.palette gives the colour {twice[0]} to two classes; give each its own")
        return colors, names

    @cached_property
    def _labels(self) -> LabelSet:
        colors, names = self._colors or (None, None)
        if self.classes is not None:
            names = _class_names(self.classes)
        declared = {
            "data.classes": None if names is None else len(names),
            "data.num_classes": self.num_classes,
            "data.palette": None if colors is None else len(colors),
        }
        counts = {key: count for key, count in declared.items() if count is not None}
        if len(set(counts.values())) > 1:
            stated = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise CrispsegError(f"the numbers of classes differ: {stated}; make them agree")
        count = next(iter(counts.values())) if counts else self._count()
        names = names or LabelSet.numbered(count).names
        return LabelSet(names, colors) if colors else LabelSet.colored(names)

    @cached_property
    def _decoder(self) -> Decoder:
        if self._colors is not None:
            return ColorDecoder(self._colors[0], tuple(_as_color(value) for value in self.ignore))
        return IdDecoder(len(self._labels), self.ignored_values)

    @cached_property
    def ignored_values(self) -> tuple[int, ...]:
        """`ignore` where masks hold ids."""
        for value in self.ignore:
            if not isinstance(value, int):
                raise CrispsegError(f"data.ignore holds the colour {list(value)}, which needs data.palette; add that")
        return tuple(value for value in self.ignore if isinstance(value, int))

    def _count(self) -> int:
        """1 + the largest value in the masks, where that is plausible."""
        found: set[int] = set().union(*parallel(_values, [pair.mask for pair in self._pairs.values()], "Reading masks"))
        ids = sorted(found - {IGNORE, *self.ignored_values})
        remedy = "say what they mean with --data.num_classes, --data.classes or --data.palette"
        if ids not in ([], [0]):
            if plausible_ids(ids):
                return ids[-1] + 1
            what = f"{len(ids)} values up to {ids[-1]} ({few(ids)}), which hardly are all class ids"
        elif IGNORE in found:
            what = f"only {' and '.join(map(str, [*ids, IGNORE]))}, and {IGNORE} means ignore"
            remedy = f"if they are black and white, {BLACK_AND_WHITE}"
        else:
            what = f"only the value {few(ids) or 'to ignore'}"
        raise CrispsegError(f"the masks in {self.masks} hold {what}; {remedy}")


@dataclass(frozen=True)
class SplitFolders(Folder):
    """Own data with a folder of images and one of masks for each split, such as train/images and train/masks."""

    folders: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    """Split → folder of images, folder of masks."""

    def splits(self) -> tuple[str, ...]:
        return tuple(self.folders)

    def pairs(self, split: str) -> list[Pair]:
        """The files of one split. Raises as `dataset` does."""
        return list(match(*self.folders[split]).values())

    def unlisted(self) -> list[Path]:
        """The images beside the folders of the splits."""
        used = [images for images, _ in self.folders.values()]
        return [file for file in find_images(self.images) if not any(file.is_relative_to(one) for one in used)]

    @cached_property
    def _pairs(self) -> dict[str, Pair]:
        pairs: dict[str, Pair] = {}
        for split in self.folders:
            with suppress(CrispsegError):  # said where the split is asked for; the classes are those of the others
                pairs |= {f"{split}/{pair.name}": pair for pair in self.pairs(split)}
        return pairs


def folder_flags(folder: Path, lists: Iterable[str]) -> str:
    """The flags that use a folder of `images`, `masks`, `classes.txt` and a list for each of some splits."""
    entries = {"images": "images", "masks": "masks", "classes": "classes.txt"}
    entries |= {f"{split}_list": f"{split}.txt" for split in lists}
    return " ".join(["--data folder", *(f"--data.{key} {folder / name}" for key, name in entries.items())])


def plausible_ids(values: Sequence[int]) -> bool:
    """Whether sorted values, without those to ignore, look like class ids: at least half of 0 to the last occur."""
    return 2 * len(values) >= values[-1] + 1


def _chosen(path: Path, names: Sequence[str]) -> list[str]:
    """The names that a list file means, given as names or file names, with or without their sub-folder."""
    by_stem = defaultdict(list)
    for name in names:
        by_stem[PurePosixPath(name).name].append(name)
    known = {**{stem: full[0] for stem, full in by_stem.items() if len(full) == 1}, **{name: name for name in names}}
    entries = [PurePosixPath(line) for line in read_lines(path)]
    keys = [
        str(entry.with_suffix("") if entry.suffix.lower() in SUFFIXES and str(entry) not in known else entry)
        for entry in entries
    ]
    if unknown := [key for key in keys if key not in known]:
        pairing_fault(
            f"{len(unknown)} of {len(keys)} entries of {path} name no image, or more than one: {few(unknown)}; "
            "write one name a line, with its sub-folder",
            ("listed-file-missing", (f"{path}: {key}" for key in unknown)),
        )
    return sorted({known[key] for key in keys if key in known})


def _class_names(classes: list[str] | str | Path) -> tuple[str, ...]:
    if isinstance(classes, list):
        return tuple(classes)
    if not Path(classes).exists():
        other = f"--data.num_classes {classes}" if str(classes).isdecimal() else "a text file with one name a line"
        raise CrispsegError(f"data.classes is {classes}, which is no file; give '[background, road]', or {other}")
    return tuple(read_lines(classes))


def _read_palette(path: Path) -> tuple[tuple[Color, ...], tuple[str, ...] | None]:
    """Lines "r g b name" → colours, and names where all lines have one."""
    lines = [re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(\S.*))?", line) for line in read_lines(path)]
    for number, line in enumerate(lines):
        if line is None:
            raise CrispsegError(f"{path}: entry {number + 1} is not 'r g b name'; write for example '128 64 128 road'")
    parts = [line.groups() for line in lines if line is not None]
    colors = tuple((int(red), int(green), int(blue)) for red, green, blue, _ in parts)
    names = tuple(name for *_, name in parts)
    return colors, names if all(names) else None


def _values(path: Path) -> set[int]:
    try:
        return set(np.unique(grey(read_mask(path), "say what they mean, by --data.palette")).tolist())
    except ValueError as error:
        raise CrispsegError(f"{path}: {error}") from None


def _as_color(value: int | Color) -> Color:
    color = (value, value, value) if isinstance(value, int) else (*value,)
    if len(color) != 3 or not all(0 <= level <= 255 for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color
