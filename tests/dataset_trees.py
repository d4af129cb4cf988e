"""Tiny trees of real files in the official layouts of data sets."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import (
    ADE20K,
    VOC2012,
    CamVid,
    Cityscapes,
    CocoStuff,
    DataSource,
    Mapillary,
    PascalContext,
    official_classes,
)
from crispseg.data.dataset import Sample, SegmentationDataset
from crispseg.labels import LabelSet, voc_palette

Ids = Sequence[int]


def save(path: Path, array: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **options)
    return path


def grid(values: Sequence[Any], height: int = 6, width: int = 8) -> np.ndarray:
    """Ids or colours, repeated to fill a picture."""
    array = np.array(values, np.uint8)
    return np.resize(array, (height, width, *array.shape[1:]))


def indexed(mask: np.ndarray, palette: Iterable[Sequence[int]]) -> Image.Image:
    """A picture with a palette, whose indices count."""
    shown = Image.fromarray(mask, "P")
    shown.putpalette([level for color in palette for level in color])
    return shown


def mask_of(spans: Any, height: int, width: int) -> np.ndarray:
    """The pixels of a shape of annotations as a mask `(height, width)`."""
    flat = np.zeros(width * height, bool)
    for start, end in spans:
        assert 0 <= start < end <= flat.size and not flat[start:end].any()  # each is named once
        flat[start:end] = True
    return flat.reshape(width, height).T


def picture(path: Path, height: int = 6, width: int = 8) -> Path:
    return save(path, np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def photos(folder: Path, *names: str) -> Path:
    """Coarse noise of 48×64 pixels, another one in each file."""
    for index, name in enumerate(names):
        noise = np.random.default_rng(index).integers(0, 256, (6, 8, 3), np.uint8)
        save(folder / name, noise.repeat(8, axis=0).repeat(8, axis=1))
    return folder


def cityscapes_pair(root: Path, split: str, name: str, ids: Ids, kind: str = "labelIds", **size: int) -> None:
    """`name` is city/stem."""
    picture(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", **size)
    save(root / "gtFine" / split / f"{name}_gtFine_{kind}.png", grid(ids, **size))


def make_cityscapes(root: Path) -> Cityscapes:
    cityscapes_pair(root, "train", "aachen/aachen_000000_000019", [*range(34), 255])
    cityscapes_pair(root, "train", "ulm/ulm_000001_000019", [7, 26])
    cityscapes_pair(root, "val", "lindau/lindau_000000_000019", [24, 0])
    cityscapes_pair(root, "test", "berlin/berlin_000000_000019", [0, 1])
    save(root / "gtFine/train/ulm/ulm_000001_000019_gtFine_color.png", grid([(0, 0, 0)]))  # as in the archive
    return Cityscapes(root)


def make_ade20k(root: Path) -> ADE20K:
    for split, name, ids in (
        ("training", "ADE_train_00000001", [*range(151)]),
        ("training", "ADE_train_00000002", [1]),
        ("validation", "ADE_val_00000001", [2, 0]),
    ):
        picture(root / "images" / split / f"{name}.jpg", 10, 20)
        save(root / "annotations" / split / f"{name}.png", grid(ids, 10, 20))
    return ADE20K(root)


def make_pascal_context(root: Path, **options: Any) -> PascalContext:
    lists = {"train": ["2008_000003", "2008_000007"], "val": ["2008_000002"]}
    for split, names in lists.items():
        for name in names:
            picture(root / "JPEGImages" / f"{name}.jpg", 8, 10)
            save(root / "SegmentationClassContext" / f"{name}.png", grid(range(60), 8, 10))
        listing = root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n")
    picture(root / "JPEGImages" / "2010_000001.jpg")  # VOC has many images that are not annotated
    return PascalContext(root, **options)


def voc_mask(path: Path, ids: Ids, **size: int) -> Path:
    """A palette PNG whose indices count, as VOC's masks are."""
    return save(path, indexed(grid(ids, **size), voc_palette(256)))


def make_voc2012(root: Path, height: int = 6, width: int = 8, **options: Any) -> VOC2012:
    """As VOCtrainval and the test archive leave it, with a list of three for the augmented training set."""
    lists = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"], "test": ["2008_000006"]}
    lists["trainval"] = sorted(lists["train"] + lists["val"])
    lists["train_aug"] = [*lists["train"], "2008_000008"]
    listings = root / "ImageSets" / "Segmentation"
    listings.mkdir(parents=True)
    for split, names in lists.items():
        (listings / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            picture(root / "JPEGImages" / f"{name}.jpg", height, width)
    for name in lists["trainval"]:
        voc_mask(root / "SegmentationClass" / f"{name}.png", [*range(21), 255], height=height, width=width)
    for name in lists["train_aug"]:
        save(root / "SegmentationClassAug" / f"{name}.png", grid([15, 255, 0], height, width))
    return VOC2012(root, **options)


COCO_VALUES = [entry.value for entry in official_classes("coco_stuff")]


def make_coco_stuff(root: Path) -> CocoStuff:
    for split, name, values in (
        ("train2017", "000000000009", [*COCO_VALUES, 255]),
        ("train2017", "000000000025", [0]),
        ("val2017", "000000000139", [181, 255]),
    ):
        picture(root / "images" / split / f"{name}.jpg", 12, 15)
        save(root / "annotations" / split / f"{name}.png", grid(values, 12, 15))
    return CocoStuff(root)


LABELS: list[dict[str, Any]] = [
    {"name": "animal--bird", "readable": "Bird", "evaluate": True, "instances": True, "color": [165, 42, 42]},
    {"name": "void--static", "readable": "Static", "evaluate": False, "instances": False, "color": [0, 0, 0]},
    {"name": "nature--sky", "readable": "Sky", "evaluate": True, "instances": False, "color": [70, 130, 180]},
    {"name": "void--unlabeled", "readable": "Unlabeled", "evaluate": False, "instances": False, "color": [0, 0, 0]},
]


def make_mapillary(root: Path, **options: Any) -> Mapillary:
    for folder, names in (("training", ["aB3", "Zq_1"]), ("validation", ["cD-4"]), ("testing", ["eF5"])):
        for name in names:
            picture(root / folder / "images" / f"{name}.jpg")
            if folder != "testing":
                mask = indexed(grid([0, 1, 2, 3]), [label["color"] for label in LABELS])
                save(root / folder / "labels" / f"{name}.png", mask)
    (root / "config.json").write_text(json.dumps({"labels": LABELS, "version": 1.2}))
    return Mapillary(root, **options)


ALL_COLORS = CamVid("nowhere", masks="colors").lookup().palette


def make_camvid(root: Path) -> CamVid:
    """The original archives beside SegNet's lists."""
    for split, names in {"train": ["0001TP_006690", "0001TP_006720"], "val": ["0016E5_07959"], "test": ["x"]}.items():
        for name in names:
            picture(root / "701_StillsRaw_full" / f"{name}.png")
            save(root / "LabeledApproved_full" / f"{name}_L.png", grid(ALL_COLORS))
        lines = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png" for name in names]
        (root / f"{split}.txt").write_text("\n".join(lines))
    return CamVid(root, masks="colors")


MAKERS: dict[str, Callable[[Path], DataSource]] = {
    "cityscapes": make_cityscapes,
    "ade20k": make_ade20k,
    "pascal_context": make_pascal_context,
    "mapillary": make_mapillary,
    "camvid": make_camvid,
    "voc2012": make_voc2012,
    "coco_stuff": make_coco_stuff,
}


def write_lists(folder: Path, stem: str, splits: dict[str, list[str]]) -> Path:
    """The lists of splits, as those in the package are."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (folder / f"{stem}{split}.txt").write_text("\n".join(names) + "\n")
    return folder


class Masks(SegmentationDataset):
    """Black images of the first mask's size with these masks, in memory."""

    def __init__(self, classes: int, *masks: NDArray[np.uint8]) -> None:
        self.labels = LabelSet.numbered(classes)
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((*self.masks[0].shape, 3), np.uint8)
        return Sample(image, self.masks[index], f"sample {index}")
