"""PASCAL-Context: whole scenes of PASCAL VOC 2010 in 59 classes and background.

Mottaghi et al.: The role of context for object detection and semantic segmentation in the wild. CVPR 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from crispseg.data.base import FileDataset
from crispseg.data.layouts import TableDecoder, check_choices, check_split_name, pair_listed
from crispseg.labels import IGNORE, LabelSet, default_palette

NAMES = (
    *("background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book"),
    *("bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer"),
    *("cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass"),
    *("ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate", "platform"),
    *("pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow", "sofa"),
    *("table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood"),
)
"""In the order of the mask values, 0 to 59, of the common PNGs: the alphabet, as in the 459 labels they are made from.

Mottaghi's own list of the 59, 59_labels.txt, has another order; masks with that one are not read here.
"""

_HINT = (
    "the root of PASCAL-Context is a folder VOC2010 with JPEGImages/*.jpg, SegmentationClassContext/*.png and "
    "ImageSets/SegmentationContext/{train,val}.txt; get "
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar "
    "and make masks and lists by MMSegmentation's pascal_context.py"
)


@dataclass(frozen=True)
class PascalContext:
    """PASCAL-Context as PNG masks, in the layout that MMSegmentation's converter leaves.

    Args:
        root: folder VOC2010, with JPEGImages, SegmentationClassContext and ImageSets.
        classes: 59 ignores the background, 60 counts it as class 0. Papers report one or the other.
    """

    root: str | Path
    classes: Literal[59, 60] = 60
    name: ClassVar[str] = "pascal_context"

    def __post_init__(self) -> None:
        check_choices(self)

    def label_set(self) -> LabelSet:
        """Names, and the colours that PASCAL VOC gives to ids 0 to 59: there are no official ones."""
        return LabelSet(NAMES[-self.classes :], default_palette(len(NAMES))[-self.classes :])

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def decoder(self) -> TableDecoder:
        """From mask values to class ids."""
        return TableDecoder(
            tuple(range(60)) if self.classes == 60 else (IGNORE, *range(59)), "values of PASCAL-Context"
        )

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split; a missing list or file.
        """
        check_split_name(split, self.splits(), "PASCAL-Context")
        root = Path(self.root)
        listing = root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        pairs = pair_listed(listing, root / "JPEGImages", ".jpg", root / "SegmentationClassContext", ".png", _HINT)
        return FileDataset(pairs, self.label_set(), self.decoder())
