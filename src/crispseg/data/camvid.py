"""CamVid with 11 classes: as SegNet's authors gave it, 480×360 pixels, or the original, 960×720 pixels.

Brostow, Fauqueur and Cipolla: Semantic object classes in video: a high-definition ground truth database. PRL 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crispseg.data.archives import waiting_archive
from crispseg.data.base import Decoder, FileDataset, IdDecoder, Pair, read_lines
from crispseg.data.layouts import check_choices, pair_below, pair_listed
from crispseg.data.pairing import pairing_fault
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, Color, LabelSet

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11
_IDS = IdDecoder(len(CLASSES), ignore=(VOID,), remedy="give --data.masks colors for masks in CamVid's colours")

GROUPS: dict[str, tuple[Color, str | None]] = {
    "Sky": ((128, 128, 128), "sky"),
    "Building": ((128, 0, 0), "building"),
    "Bridge": ((0, 128, 64), "building"),
    "Wall": ((64, 192, 0), "building"),
    "Tunnel": ((64, 0, 64), "building"),
    "Archway": ((192, 0, 128), "building"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "Road": ((128, 64, 128), "road"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Tree": ((128, 128, 0), "tree"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "SignSymbol": ((192, 128, 128), "sign symbol"),
    "Misc_Text": ((128, 128, 64), "sign symbol"),
    "TrafficLight": ((0, 64, 64), "sign symbol"),
    "Fence": ((64, 64, 128), "fence"),
    "Car": ((64, 0, 128), "car"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Train": ((192, 64, 128), "car"),
    "OtherMoving": ((128, 64, 64), "car"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Animal": ((64, 128, 64), "pedestrian"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "Void": ((0, 0, 0), None),
}
"""The original's 32 classes: colour, and which of the 11 each belongs to.

Papers name the 11 but not this grouping. It is that of MathWorks' CamVid example, said there to be SegNet's. Some
loaders group the rare ones otherwise, or ignore them.
"""

_LAYOUT = "a CamVid folder holds train.txt, with lines 'train/x.png trainannot/x.png', and the files these name"
_ORIGINAL = (
    "the root of the original CamVid holds 701_StillsRaw_full, LabeledApproved_full and train.txt, val.txt, test.txt "
    "with the names of images (SegNet's lists serve), or folders train and train_labels, val and val_labels, …; get it "
    "from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid; SegNet's form, 480×360 with trainannot, is read "
    "by --data.masks ids"
)


@dataclass(frozen=True)
class CamVid:
    """CamVid with 11 classes.

    Args:
        root: folder with train.txt, val.txt (or test.txt) and the images and masks that these lists name.
        masks: ids for masks of class ids, as in SegNet's form of 480×360 pixels; colors for the original's masks in
            32 colours, of 960×720 pixels, in LabeledApproved_full or in folders such as train_labels.
    """

    root: str | Path
    masks: Literal["ids", "colors"] = "ids"
    name: ClassVar[str] = "camvid"

    def __post_init__(self) -> None:
        check_choices(self)

    def label_set(self) -> LabelSet:
        return LabelSet(tuple(CLASSES), tuple(CLASSES.values()))

    def splits(self) -> tuple[str, ...]:
        """Those of train, val and test that have a list, or a folder of masks.

        Raises:
            CrispsegError: there is none.
        """
        root = Path(self.root)
        splits = tuple(
            split
            for split in ("train", "val", "test")
            if (root / f"{split}.txt").is_file() or (self.masks == "colors" and (root / f"{split}_labels").is_dir())
        )
        if not splits:
            waiting = waiting_archive(root / "train.txt")
            layout = _LAYOUT if self.masks == "ids" else _ORIGINAL
            raise CrispsegError(f"{root} is not a CamVid folder: no train.txt, val.txt or test.txt{waiting}; {layout}")
        return splits

    def decoder(self) -> Decoder:
        """From mask values, or colours, to class ids."""
        return _IDS if self.masks == "ids" else decode_colors

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split, a malformed line in its list, or a file that the list names is missing.
        """
        if split not in self.splits():
            raise CrispsegError(f"{self.root} has no split '{split}'; it has {', '.join(self.splits())}")
        if self.masks == "colors":
            return FileDataset(self._original_pairs(split), self.label_set(), self.decoder())
        lines = read_lines(Path(self.root) / f"{split}.txt")
        pairs = [pair for line in lines if (pair := self._pair(line, split)) is not None]
        return FileDataset(pairs, self.label_set(), self.decoder())

    def _pair(self, line: str, split: str) -> Pair | None:
        """The files that a line names; None where one is missing and faults are collected."""
        files = [PurePosixPath(word) for word in line.split()]
        if len(files) != 2 or any(len(file.parts) < 2 for file in files):
            raise CrispsegError(f"{Path(self.root) / split}.txt: malformed line '{line}'; {_LAYOUT}")
        # SegNet's own lists say /SegNet/CamVid/train/x.png, wherever the folder really is.
        image, mask = (Path(self.root, *file.parts[-2:]) for file in files)
        missing = [file for file in (image, mask) if not file.is_file()]
        if missing:
            pairing_fault(
                f"{missing[0]} is missing, though {split}.txt names it; {_LAYOUT}", ("listed-file-missing", missing)
            )
            return None
        return Pair(image.stem, image, mask)

    def _original_pairs(self, split: str) -> list[Pair]:
        root = Path(self.root)
        if (root / f"{split}_labels").is_dir():
            return pair_below(root / split, ".png", root / f"{split}_labels", "_L.png", _ORIGINAL)
        images, masks = root / "701_StillsRaw_full", root / "LabeledApproved_full"
        return pair_listed(root / f"{split}.txt", images, ".png", masks, "_L.png", _ORIGINAL)


def decode_colors(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Masks in the original's 32 colours → ids of the 11 classes.

    Raises:
        ValueError: a mask of class ids, or a colour that means no class.
    """
    if mask.ndim == 2:
        raise ValueError("a mask of class ids, not of colours; leave data.masks at 'ids'")
    code = _two_bits(mask)
    labels = _GROUP_OF.take(code)
    strange = (labels > IGNORE) | (mask & 63).any(axis=-1)
    if strange.any():
        color = mask[strange][0].tolist()
        raise ValueError(f"the colour {color} is none of CamVid's 32, in {strange.sum()} pixels; restore the mask")
    return labels.astype(np.uint8)


def _two_bits(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`(..., 3)` → `(...)`, 0 to 63: levels are 0, 64, 128 or 192, so two bits tell them apart."""
    red, green, blue = np.moveaxis(colors >> 6, -1, 0)
    packed: NDArray[np.uint8] = (red << 4) | (green << 2) | blue
    return packed


def _group_table() -> NDArray[np.uint16]:
    """The class of each packed colour, 256 for those of none."""
    ids = {name: index for index, name in enumerate(CLASSES)} | {None: IGNORE}
    table = np.full(64, IGNORE + 1, np.uint16)
    for color, group in GROUPS.values():
        table[_two_bits(np.array(color, np.uint8))] = ids[group]
    return table


_GROUP_OF = _group_table()
