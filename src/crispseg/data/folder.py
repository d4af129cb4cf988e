"""Own data without code: a folder of images and a folder of masks with the same names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crispseg.data.base import Decoder, FileDataset, IdDecoder, Pair, grey, read_lines
from crispseg.data.check import BLACK_AND_WHITE, parallel
from crispseg.data.pairing import pairing_fault
from crispseg.errors import CrispsegError
from crispseg.imaging import SUFFIXES, find_images, read_mask
from crispseg.labels import IGNORE, Color, LabelSet, default_palette

SPLITS = ("train", "val")
_MASK_ENDING = re.compile(r"[-_](masks?|labels?|gt|seg|L)$")


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
        ignore: further mask values, or [r, g, b] colours, that mean ignore.
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
    ignore: tuple[int | Color, ...] = ()
    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        if not 0 < self.val_ratio < 1:
            raise CrispsegError(f"data.val_ratio is {self.val_ratio}; give a share between 0 and 1, such as 0.2")
        for value in self.ignore:
            if isinstance(value, int) and not 0 <= value <= 0xFFFF:
                raise CrispsegError(f"data.ignore holds {value}; mask values are 0 to 65535")

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
        return FileDataset(self.pairs(split), self._labels, self._decoder)

    def pairs(self, split: str) -> list[Pair]:
        """The files of one split, whatever their masks hold. Raises as `dataset` does."""
        if split not in SPLITS:
            raise CrispsegError(f"there is no split '{split}' in a folder of images; it has {', '.join(SPLITS)}")
        return [self._pairs[name] for name in self._names[split]]

    def unlisted(self) -> list[Path]:
        """The images of pairs that no split has, since neither list names them. Raises as `dataset` does."""
        listed = set().union(*self._names.values())
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
    def _names(self) -> dict[str, list[str]]:
        """The names of each split."""
        every = list(self._pairs)
        given = {
            split: _chosen(Path(path), every)
            for split, path in zip(SPLITS, (self.train_list, self.val_list), strict=True)
            if path is not None
        }
        if len(given) == 2:
            both = sorted(set(given["train"]) & set(given["val"]))
            if both:
                pairing_fault(
                    f"{len(both)} images stand in both {self.train_list} and {self.val_list}: {_few(both)}; "
                    "validate on images that are not trained on"
                )  # where faults are collected, equal images in two splits are found anyway
            return given
        if given:
            (split, names), (other,) = next(iter(given.items())), set(SPLITS) - set(given)
            rest = sorted(set(every) - set(names))
        else:
            if len(every) < 2:
                raise CrispsegError(f"{self.images} holds one image; two or more are needed, to train and to validate")
            order = np.random.default_rng(self.seed).permutation(len(every))
            count = min(max(round(self.val_ratio * len(every)), 1), len(every) - 1)
            split, names = "val", sorted(every[index] for index in order[:count])
            other, rest = "train", sorted(every[index] for index in order[count:])
        if not rest:
            raise CrispsegError(f"the list of '{split}' names every image, so '{other}' is empty; shorten the list")
        return {split: names, other: rest}

    @cached_property
    def _colors(self) -> tuple[tuple[Color, ...], tuple[str, ...] | None] | None:
        """The palette, and the names that its file gives."""
        if self.palette is None:
            return None
        if isinstance(self.palette, (str, Path)):
            colors, names = _read_palette(Path(self.palette))
        else:
            colors, names = tuple(_as_color(color) for color in self.palette), None
        twice = [list(color) for color in colors if colors.count(color) > 1]
        if twice:
            raise CrispsegError(f"data.palette gives the colour {twice[0]} to two classes; give each its own")
        return colors, names

    @cached_property
    def _labels(self) -> LabelSet:
        names: Sequence[str] | None = None
        if isinstance(self.classes, (str, Path)):
            names = read_lines(self.classes)
        elif self.classes is not None:
            names = self.classes
        colors, file_names = self._colors or (None, None)
        names = file_names if names is None else names
        counts = {
            "data.classes": None if names is None else len(names),
            "data.num_classes": self.num_classes,
            "data.palette": None if colors is None else len(colors),
        }
        declared = {key: count for key, count in counts.items() if count is not None}
        if len(set(declared.values())) > 1:
            stated = ", ".join(f"{key} {count}" for key, count in declared.items())
            raise CrispsegError(f"the numbers of classes differ: {stated}; make them agree")
        count = next(iter(declared.values())) if declared else self._count()
        return LabelSet(
            tuple(names) if names is not None else tuple(f"class {index}" for index in range(count)),
            colors or default_palette(count),
        )

    @cached_property
    def _decoder(self) -> Decoder:
        if self._colors is not None:
            return ColorDecoder(self._colors[0], tuple(_as_color(value) for value in self.ignore))
        return IdDecoder(len(self._labels), self.ignored_values)

    @cached_property
    def ignored_values(self) -> tuple[int, ...]:
        """`ignore` where masks hold ids."""
        colors = [value for value in self.ignore if not isinstance(value, int)]
        if colors:
            raise CrispsegError(f"data.ignore holds the colour {list(colors[0])}, which needs data.palette; add that")
        return tuple(value for value in self.ignore if isinstance(value, int))

    def _count(self) -> int:
        """1 + the largest value in the masks, where that is plausible."""
        found: set[int] = set().union(*parallel(_values, [pair.mask for pair in self._pairs.values()], "Reading masks"))
        ids = sorted(found - {IGNORE, *self.ignored_values})
        remedy = "say what they mean with --data.num_classes, --data.classes or --data.palette"
        if ids in ([], [0]):
            if IGNORE in found:
                raise CrispsegError(
                    f"the masks in {self.masks} hold only {' and '.join(map(str, [*ids, IGNORE]))}, and {IGNORE} means "
                    f"ignore; if they are black and white, {BLACK_AND_WHITE}"
                )
            raise CrispsegError(f"the masks in {self.masks} hold only the value {_few(ids) or 'to ignore'}; {remedy}")
        if not plausible_ids(ids):
            raise CrispsegError(
                f"the masks in {self.masks} hold {len(ids)} values up to {ids[-1]} ({_few(ids)}), which hardly are "
                f"all class ids; {remedy}"
            )
        return ids[-1] + 1


def plausible_ids(values: Sequence[int]) -> bool:
    """Whether sorted values, without those to ignore, look like class ids: at least half of 0 to the last occur."""
    return 2 * len(values) >= values[-1] + 1


@dataclass(frozen=True)
class ColorDecoder:
    """Masks whose colours mean the classes; a grey value v is the colour (v, v, v)."""

    palette: tuple[Color, ...]
    ignore: tuple[Color, ...] = ()

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        if mask.dtype != np.uint8:
            raise ValueError("16-bit values, which no palette of 8-bit colours can decode; save the mask with 8 bits")
        channels = (mask, mask, mask) if mask.ndim == 2 else np.moveaxis(mask, -1, 0)
        packed = _packed(*channels)
        labels = _color_table(self.palette).take(packed)
        void = packed[labels == IGNORE]
        known = _packed(*np.array(self.ignore, np.uint8).reshape(-1, 3).T)
        strange, counts = np.unique(void[~np.isin(void, known)], return_counts=True)
        if len(strange):
            most = counts.argmax()
            color = [int(strange[most]) >> shift & 0xFF for shift in (16, 8, 0)]
            others = f" (and {len(strange) - 1} other colours)" if len(strange) > 1 else ""
            hint = " or, if the values are class ids, leave data.palette out" if mask.ndim == 2 else ""
            raise ValueError(
                f"the colour {color} of {counts[most]} pixels{others} is not in data.palette; "
                f"add it there or to data.ignore{hint}"
            )
        return labels


def _packed(red: NDArray[np.uint8], green: NDArray[np.uint8], blue: NDArray[np.uint8]) -> NDArray[np.uint32]:
    packed: NDArray[np.uint32] = (red.astype(np.uint32) << np.uint32(16)) | (green.astype(np.uint32) << np.uint32(8))
    return packed | blue


@lru_cache(maxsize=2)  # 16 MB each
def _color_table(palette: tuple[Color, ...]) -> NDArray[np.uint8]:
    """The class of each of the 2^24 packed colours, 255 for those of none."""
    table = np.full(2**24, IGNORE, np.uint8)
    table[_packed(*np.array(palette, np.uint8).T)] = np.arange(len(palette))
    return table


def match(images: Path, masks: Path) -> dict[str, Pair]:
    """Pair images with masks by their path in the folder without suffix; sorted by that name.

    Raises:
        CrispsegError: a folder is missing or empty, two files have one name, or a file has no partner.
    """
    if images.resolve() == masks.resolve():
        raise CrispsegError(f"images and masks are the same folder, {images}; put them into two")
    image_of, image_clashes = _by_name(images, masks)
    mask_of, mask_clashes = _by_name(masks, images)
    for name in image_clashes | mask_clashes:  # which of them is meant is not known
        image_of.pop(name, None)
        mask_of.pop(name, None)
    for name in sorted(mask_of.keys() - image_of.keys()):
        base = _MASK_ENDING.sub("", name)
        if base in image_of and name != base:
            if base in mask_of:
                both = (mask_of[base], mask_of[name])
                pairing_fault(
                    f"two masks fit one image: {both[0]} and {both[1]}; remove one of them", ("ambiguous-names", both)
                )
                del image_of[base], mask_of[base], mask_of[name]
                continue
            mask_of[base] = mask_of.pop(name)
    lonely = {"image": sorted(image_of.keys() - mask_of.keys()), "mask": sorted(mask_of.keys() - image_of.keys())}
    if any(lonely.values()):
        found = " and ".join(
            f"{len(names)} of {total} {kind}s have no {other} ({_few(names)})"
            for (kind, names), total, other in zip(
                lonely.items(), (len(image_of), len(mask_of)), ("mask", "image"), strict=True
            )
            if names
        )
        pairing_fault(
            f"{found} in {images} and {masks}; give both the same names, or move the extra ones away",
            ("image-without-mask", (image_of[name] for name in lonely["image"])),
            ("mask-without-image", (mask_of[name] for name in lonely["mask"])),
        )
    return {name: Pair(name, image_of[name], mask_of[name]) for name in sorted(image_of) if name in mask_of}


def _by_name(folder: Path, other: Path) -> tuple[dict[str, Path], set[str]]:
    """Files by their path in the folder without suffix, except those in the other folder if that lies inside.

    Also the names that several files have, where that is not raised.
    """
    paths = find_images(folder)
    if other.resolve().is_relative_to(folder.resolve()):
        inside = folder / other.resolve().relative_to(folder.resolve())
        paths = [path for path in paths if not path.is_relative_to(inside)]
    files: dict[str, Path] = {}
    clashes = set()
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            pairing_fault(
                f"{files[name]} and {path} have the same name; rename or remove one of them",
                ("ambiguous-names", (files[name], path)),
            )
            clashes.add(name)
        files[name] = path
    if not files:
        raise CrispsegError(f"{folder} holds no images; known suffixes: {', '.join(sorted(SUFFIXES))}")
    return files, clashes


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
    unknown = [key for key in keys if key not in known]
    if unknown:
        pairing_fault(
            f"{len(unknown)} of {len(keys)} entries of {path} name no image, or more than one: {_few(unknown)}; "
            "write one name a line, with its sub-folder",
            ("listed-file-missing", (f"{path}: {key}" for key in unknown)),
        )
    return sorted({known[key] for key in keys if key in known})


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
        return set(np.unique(grey(read_mask(path), IdDecoder.remedy)).tolist())
    except ValueError as error:
        raise CrispsegError(f"{path}: {error}") from None


def _as_color(value: int | Color) -> Color:
    color = (value, value, value) if isinstance(value, int) else (*value,)
    if len(color) != 3 or not all(0 <= level <= 255 for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color


def _few(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:5])) + (", …" if len(items) > 5 else "")
