"""PASCAL VOC 2012, segmentation: 20 kinds of objects and background, 1464 images to train and 1449 to validate on.

Everingham et al.: The PASCAL visual object classes (VOC) challenge. IJCV 2010. The augmented training set of 10582
images has masks of Hariharan et al.: Semantic contours from inverse detectors. ICCV 2011 (SBD).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from crispseg.data.base import FileDataset
from crispseg.data.layouts import TableDecoder, check_choices, check_split_name, pair_listed
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet, default_palette

NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of the mask values, 0 to 20; 255, the void along borders, is ignored."""

AUGMENTED = ("train_aug", "trainaug")
"""Names under which the list of the augmented training set goes around."""

_ROOT = "the root of PASCAL VOC 2012 is the folder VOCdevkit/VOC2012"
_HINT = (
    f"{_ROOT} with JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{{train,val,trainval}}.txt; "
    "get VOCtrainval_11-May-2012.tar by 'crispseg data download voc2012', or from "
    "https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC"
)
_AUG_HINT = (
    f"{_ROOT}; for --data.train_on aug it also holds SegmentationClassAug/*.png, masks of class ids for all 10582 "
    "images, and ImageSets/Segmentation/train_aug.txt (or trainaug.txt); make them from SBD, "
    "by 'crispseg data download sbd' and 'crispseg data augment'"
)


@dataclass(frozen=True)
class VOC2012:
    """PASCAL VOC 2012, 21 classes with the background. The masks of its test images are not public.

    Args:
        root: folder VOC2012, with JPEGImages, SegmentationClass and ImageSets.
        train_on: train; aug for the augmented training set, from SegmentationClassAug; or trainval to train on the val
            images too, as for the test server, val scores being then of images that were trained on.
    """

    root: str | Path
    train_on: Literal["train", "trainval", "aug"] = "train"
    name: ClassVar[str] = "voc2012"

    def __post_init__(self) -> None:
        check_choices(self)

    def label_set(self) -> LabelSet:
        return LabelSet(NAMES, default_palette(len(NAMES)))

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def decoder(self) -> TableDecoder:
        """From mask values to class ids."""
        return TableDecoder(tuple(range(len(NAMES))), "values of PASCAL VOC")

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split, or one without public masks; a missing list or file.
        """
        root = Path(self.root)
        lists = root / "ImageSets" / "Segmentation"
        if split == "test":
            raise CrispsegError(
                "PASCAL VOC keeps the masks of 'test' on its server, so it cannot be scored here; predict the images "
                f"that {lists / 'test.txt'} names with 'crispseg predict', or score the split 'val'"
            )
        check_split_name(split, self.splits(), "PASCAL VOC 2012")
        if split == "train" and self.train_on == "aug":
            found = [listing for name in AUGMENTED if (listing := lists / f"{name}.txt").is_file()]
            listing, masks, hint = (*found, lists / f"{AUGMENTED[0]}.txt")[0], "SegmentationClassAug", _AUG_HINT
        else:
            name = self.train_on if split == "train" else split
            listing, masks, hint = lists / f"{name}.txt", "SegmentationClass", _HINT
        pairs = pair_listed(listing, root / "JPEGImages", ".jpg", root / masks, ".png", hint)
        return FileDataset(pairs, self.label_set(), self.decoder())
