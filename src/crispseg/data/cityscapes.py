"""Cityscapes, finely annotated: 19 classes, 2048×1024 pixels, 2975 images to train and 500 to validate on.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding. CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crispseg.data.base import FileDataset
from crispseg.data.layouts import TableDecoder, TrainOn, check_choices, check_split_name, pair_below, parts_of
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, Color, LabelSet

CLASSES: dict[str, tuple[int, Color]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""Name → value in the masks `*_labelIds.png`, colour. The order is that of the train ids."""

LABEL_IDS = 34
"""`*_labelIds.png` have values below; those of no class, such as 4 (static) or 29 (caravan), are ignored."""

_ENDING, _TRAIN_ENDING = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"

_HINT = (
    "the root of Cityscapes holds leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and "
    "gtFine/SPLIT/CITY/*_gtFine_labelIds.png; get leftImg8bit_trainvaltest and gtFine_trainvaltest from "
    "https://www.cityscapes-dataset.com"
)


@dataclass(frozen=True)
class Cityscapes:
    """Cityscapes with fine annotations and 19 classes.

    Masks `*_labelIds.png` are read where the folders hold them, else `*_labelTrainIds.png`. The masks of the test split
    are not public.

    Args:
        root: folder with leftImg8bit and gtFine.
        train_on: train, or trainval to train on the val images too, as for the test server; val scores are then of
            images that were trained on.
    """

    root: str | Path
    train_on: TrainOn = "train"
    name: ClassVar[str] = "cityscapes"

    def __post_init__(self) -> None:
        check_choices(self)

    def label_set(self) -> LabelSet:
        return LabelSet(tuple(CLASSES), tuple(color for _, color in CLASSES.values()))

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def decoder(self) -> TableDecoder:
        """From mask values to class ids: label ids, unless the root is there and holds train ids only."""
        parts = parts_of("train", self.train_on)
        return _TRAIN_IDS if self._ending(parts) == _TRAIN_ENDING else _LABEL_IDS

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split, or one without public masks; missing folders or files.
        """
        if split == "test":
            raise CrispsegError(
                f"Cityscapes keeps the masks of 'test' on its server, so it cannot be scored here; predict "
                f"{Path(self.root) / 'leftImg8bit' / 'test'} with 'crispseg predict', or score the split 'val'"
            )
        check_split_name(split, self.splits(), "Cityscapes")
        parts = parts_of(split, self.train_on)
        images, masks = Path(self.root) / "leftImg8bit", Path(self.root) / "gtFine"
        ending = self._ending(parts)
        pairs = [
            pair
            for part in parts
            for pair in pair_below(images / part, "_leftImg8bit.png", masks / part, ending, _HINT)
        ]
        return FileDataset(pairs, self.label_set(), _LABEL_IDS if ending == _ENDING else _TRAIN_IDS)

    def _ending(self, parts: Sequence[str]) -> str:
        """How the names of the masks end that the official splits hold."""
        masks = Path(self.root) / "gtFine" / parts[0]
        has_ids = any(masks.rglob(f"*{_ENDING}"))
        return _TRAIN_ENDING if not has_ids and any(masks.rglob(f"*{_TRAIN_ENDING}")) else _ENDING


_CLASS_OF = {value: index for index, (value, _) in enumerate(CLASSES.values())}
_LABEL_IDS = TableDecoder(tuple(_CLASS_OF.get(value, IGNORE) for value in range(LABEL_IDS)), "label ids of Cityscapes")
_TRAIN_IDS = TableDecoder(tuple(range(len(CLASSES))), "train ids of Cityscapes")
