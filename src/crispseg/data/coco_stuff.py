"""COCO-Stuff: the images of COCO 2017 with 80 things and 91 kinds of stuff, 118287 to train and 5000 to validate on.

Caesar, Uijlings and Ferrari: COCO-Stuff: thing and stuff classes in context. CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crispseg.data.base import FileDataset
from crispseg.data.layouts import TableDecoder, check_split_name, pair_below
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, LabelSet, default_palette

WITHOUT_MASKS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Official ids of things, such as 12 (street sign), that COCO names but has no masks of."""

THINGS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""In the order of the other official ids, 1 to 90."""

STUFF = (
    *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet"),
    *("ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff"),
    *("dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood"),
    *("flower", "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house"),
    *("leaves", "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper"),
    *("pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river"),
    *("road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow"),
    *("solid-other", "stairs", "stone", "straw", "structural-other", "table", "tent", "textile-other", "towel"),
    *("tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile"),
    *("wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood"),
)
"""In the order of the official ids, 92 to 182."""

IDS: dict[int, str] = dict(
    zip((value for value in range(1, 183) if value not in WITHOUT_MASKS), (*THINGS, *STUFF), strict=True)
)
"""Official id → name. Class ids are numbered in this order; the masks hold the official id less 1."""

LABEL_VALUES = 182

_CLASS_OF = {value - 1: index for index, value in enumerate(IDS)}
_DECODER = TableDecoder(
    # Values of the 11 ids without masks are refused: where they occur, the masks hold something else.
    tuple(_CLASS_OF.get(value, IGNORE + 1) for value in range(LABEL_VALUES)),
    "values of COCO-Stuff (official ids less 1)",
)

_HINT = (
    "the root of COCO-Stuff holds images/{train2017,val2017}/*.jpg and annotations/{train2017,val2017}/*.png (or "
    "stuffthingmaps/…); get train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip by 'crispseg data download "
    "coco_stuff', or from https://github.com/nightrome/cocostuff"
)


@dataclass(frozen=True)
class CocoStuff:
    """COCO-Stuff with all 171 classes, from the masks "stuffthingmaps". Those of the test images are not public.

    Args:
        root: folder with images/train2017, images/val2017 and, in annotations or stuffthingmaps, the same of masks.
    """

    root: str | Path
    name: ClassVar[str] = "coco_stuff"

    def label_set(self) -> LabelSet:
        """Official names, and the colours that PASCAL VOC gives to the ids 1 to 182: the masks come without colours."""
        colors = default_palette(LABEL_VALUES + 1)
        return LabelSet(tuple(IDS.values()), tuple(colors[value] for value in IDS))

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def decoder(self) -> TableDecoder:
        return _DECODER

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split, or one without public masks; missing folders or files.
        """
        root = Path(self.root)
        if split == "test":
            raise CrispsegError(
                "COCO keeps the masks of 'test' to itself, so it cannot be scored here; predict its images with "
                "'crispseg predict', or score the split 'val'"
            )
        check_split_name(split, self.splits(), "COCO-Stuff")
        maps = root / "stuffthingmaps"
        masks = maps if maps.is_dir() else root / "annotations"
        pairs = pair_below(root / "images" / f"{split}2017", ".jpg", masks / f"{split}2017", ".png", _HINT)
        return FileDataset(pairs, self.label_set(), self.decoder())
