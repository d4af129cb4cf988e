"""What data sets with an official layout share: finding their pairs, and masks whose values mean classes by a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from crispseg.data.archives import waiting_archive
from crispseg.data.base import Pair, grey, read_lines
from crispseg.data.pairing import PairingKind, pairing_fault
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.labels import IGNORE

TrainOn: TypeAlias = Literal["train", "trainval"]
"""What the split "train" holds; "val" is the same either way."""


@dataclass(frozen=True)
class TableDecoder:
    """Masks whose values mean classes by a table.

    Args:
        table: the class id, or 255 to ignore, of each value from 0 on; the value 255 is ignored in any case.
        values: what the values are called in errors.
    """

    table: tuple[int, ...]
    values: str

    def __call__(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        mask = grey(mask, f"give the original mask, of {self.values}")
        labels = _lookup(self.table).take(mask)
        if labels.max() > IGNORE:
            wrong = ", ".join(map(str, np.unique(mask[labels > IGNORE])[:5]))
            last = len(self.table) - 1
            raise ValueError(f"value {wrong} is none of the {self.values}, 0 to {last}; restore the original mask")
        return labels.astype(np.uint8)


@lru_cache(maxsize=8)
def _lookup(table: tuple[int, ...]) -> NDArray[np.uint16]:
    """For each 8-bit or 16-bit value its label, 256 where it has none."""
    lookup = np.full(2**16, IGNORE + 1, np.uint16)
    lookup[: len(table)] = table
    lookup[IGNORE] = IGNORE
    return lookup


def parts_of(split: str, train_on: TrainOn) -> tuple[str, ...]:
    """The official splits that a split is made of."""
    return ("train", "val") if split == "train" and train_on == "trainval" else (split,)


def pair_below(images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """Pair the images and masks in two folders, sub-folders included, whose paths differ by their endings only.

    Args:
        hint: ends an error: what belongs where and where to get it.

    Raises:
        CrispsegError: a folder is missing or empty, or a file has no partner.
    """
    image_of, mask_of = _files_below(images, image_ending, hint), _files_below(masks, mask_ending, hint)
    no_mask: PairingKind = "image-without-mask"
    no_image: PairingKind = "mask-without-image"
    for some, folder, kind, others, partner, fault in (
        (image_of, images, "images", mask_of, f"mask in {masks}", no_mask),
        (mask_of, masks, "masks", image_of, f"image in {images}", no_image),
    ):
        if lonely := sorted(some.keys() - others.keys()):
            shown = ", ".join(lonely[:3]) + (", …" if len(lonely) > 3 else "")
            message = f"{len(lonely)} of {len(some)} {kind} in {folder} have no {partner} ({shown}); {hint}"
            pairing_fault(message, (fault, (some[name] for name in lonely)))
    return [Pair(name, image_of[name], mask_of[name]) for name in image_of if name in mask_of]


def pair_listed(listing: Path, images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """The pairs that a text file names, one a line: the stem of the line's first word is what both files begin with.

    Raises:
        CrispsegError: the list is missing or empty, or a file is missing.
    """
    if not listing.is_file():
        raise CrispsegError(f"{listing} is missing{waiting_archive(listing)}; {hint}")
    stems = dict.fromkeys(Path(line.split()[0]).stem for line in read_lines(listing))
    pairs = [Pair(stem, images / (stem + image_ending), masks / (stem + mask_ending)) for stem in stems]
    missing = [file for pair in pairs for file in (pair.image, pair.mask) if not file.is_file()]
    if missing:
        pairing_fault(
            f"{len(missing)} of the {2 * len(pairs)} files that {listing} names are missing, first {missing[0]}; "
            f"{hint}",
            ("listed-file-missing", missing),
        )
    lost = set(missing)
    return [pair for pair in pairs if not lost & {pair.image, pair.mask}]


def check_split_name(split: str, splits: Sequence[str], data: str) -> None:
    """Raise a CrispsegError where there is no such split."""
    if split not in splits:
        raise CrispsegError(f"{data} has no split '{split}'{did_you_mean(split, splits)}")


def check_choices(source: Any) -> None:
    """Raise a CrispsegError where a `Literal` field of a data source holds something else."""
    hints = get_type_hints(type(source))
    for field in dataclasses.fields(source):
        value, choices = getattr(source, field.name), get_args(hints[field.name])
        exact = any(type(value) is type(choice) and value == choice for choice in choices)
        if get_origin(hints[field.name]) is Literal and not exact:
            raise CrispsegError(f"data.{field.name} is {value!r}; choose one of {', '.join(map(str, choices))}")


def _files_below(folder: Path, ending: str, hint: str) -> dict[str, Path]:
    """Files by their path in the folder without the ending, sorted; hidden ones are left out."""
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():
            what = "no folder" if level.exists() else "missing"
            raise CrispsegError(f"{level} is {what}{waiting_archive(level)}; {hint}")
    paths = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not paths:
        raise CrispsegError(f"{folder} holds no files *{ending}; {hint}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in paths}
