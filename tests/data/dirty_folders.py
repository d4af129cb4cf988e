"""Small folders as people really have them, made by script, each with what its masks mean written down.

A maker of `FOLDERS` writes images and masks below a folder and returns what training on them has to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from dataset_trees import save
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
BINARY = ("background", "class 1")
Labels = NDArray[np.uint8]


class Truth(NamedTuple):
    """What is right."""

    labels: Mapping[str, Labels]
    """Image, by its path in data.root without suffix → label map of class ids, of all that have usable masks."""
    classes: Sequence[str]
    count: int
    """How many images are in train and val."""
    masks: str = ""
    """In the command to choose, if masks in several folders can be meant."""
    val: frozenset[str] | None = None
    """The images of val, if folders say so."""


def numbered(count: int) -> list[str]:
    """The names of classes that have none."""
    return [f"class {index}" for index in range(count)]


def scenes(count: int, classes: int = 2) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
    """Noisy images in which discs of the classes are bright, and their labels; all classes occur."""
    random = np.random.default_rng(classes)
    y, x = np.mgrid[:SIDE, :SIDE]
    for index in range(count):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for number in range(3):
            row, column = random.integers(12, SIDE - 12, 2)
            labels[np.hypot(y - row, x - column) < 9] = 1 + (3 * index + number) % (classes - 1)
        noise = random.integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        yield noise + (labels * (150 // (classes - 1)))[..., None].astype(np.uint8), labels


def soft(labels: Labels) -> NDArray[np.uint8]:
    """Black and white with soft edges, as after resizing; 128 and more is where the labels are 1."""
    blurred = cv2.GaussianBlur(labels * np.float32(255), (0, 0), 1.2)
    return np.where(labels == 1, np.maximum(blurred, 128), np.minimum(blurred, 127)).astype(np.uint8)


def cracks_with_soft_edges(root: Path) -> Truth:
    truth = {}
    for index, (image, labels) in enumerate(scenes(16)):
        save(root / f"images/{index:03}.jpg", image)
        save(root / f"masks/{index:03}.png", soft(labels))
        truth[f"images/{index:03}"] = labels
    return Truth(truth, BINARY, 16)


def cracks_with_strays(root: Path) -> Truth:
    """Two masks of 16 hold a few pixels of 3 and 4."""
    truth = {}
    for index, (image, labels) in enumerate(scenes(16)):
        split = "train" if index < 12 else "test"
        mask = labels * 255
        if index in (3, 7):
            mask[0, :5] = (3, 4, 3, 3, 4)
        save(root / f"{split}_img/{index:03}.jpg", image)
        save(root / f"{split}_lab/{index:03}.png", mask)
        truth[f"{split}_img/{index:03}"] = labels
    return Truth(truth, BINARY, 12)


def magnetic_tiles(root: Path) -> Truth:
    """A folder for each kind of defect, masks of its colour beside the images; some colours are off by 5."""
    truth, kinds = {}, ("Blowhole", "Break", "Crack")
    colors = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
    for index, (image, labels) in enumerate(scenes(24)):
        kind = index % 3
        labels = labels * np.uint8(kind + 1)
        mask = colors[labels]
        if index % 8 == 7:
            mask = np.where(mask > 0, mask - 5, mask).astype(np.uint8)
        name = f"MT_{kinds[kind]}/Imgs/exp{index % 5}_num_{index * 37}"
        save(root / f"{name}.jpg", image)
        save(root / f"{name}.png", mask)
        truth[name] = labels
    return Truth(truth, numbered(4), 24)


def wounds(root: Path) -> Truth:
    """One mask of 110 is odd: 84 of its pixels have other values."""
    truth, val = {}, set()
    for index, (image, labels) in enumerate(scenes(110)):
        split, name = "validation" if index % 10 == 9 else "train", f"{index:04}"
        save(root / split / f"images/{name}.png", image)
        mask = labels * 255
        if index == 50:
            mask[:12, :7] = np.arange(84).reshape(12, 7) % 60 + 20
        else:
            truth[f"{split}/images/{name}"] = labels
        save(root / split / f"labels/{name}.png", mask)
        if split == "validation":
            val.add(f"{split}/images/{name}")
    for index, (image, _) in enumerate(scenes(4)):
        save(root / f"test/images/1{index:03}.png", image)
    return Truth(truth, BINARY, 109, val=frozenset(val))


def potholes(root: Path) -> Truth:
    """Folders of disparities have the same names."""
    truth, val = {}, set()
    for index, (image, labels) in enumerate(scenes(18)):
        split, name = ("training", "validation", "testing")[max(index - 6, 0) // 4], f"{index:04}"
        save(root / split / f"rgb/{name}.png", image)
        save(root / split / f"tdisp/{name}.png", image[..., 0])
        save(root / split / f"label/{name}.png", labels * 255)
        truth[f"{split}/rgb/{name}"] = labels
        if split == "validation":
            val.add(f"{split}/rgb/{name}")
    return Truth(truth, BINARY, 14, val=frozenset(val))


def electron_microscopy(root: Path) -> Truth:
    """Slices, and masks of several kinds, one of which has other names."""
    truth = {}
    for index, (image, labels) in enumerate(scenes(20, 4)):
        save(root / f"raw/{index:02}.tif", image[..., 0])
        save(root / f"labels/labels{index:08}.png", labels)
        for value, kind in enumerate(("mitochondria", "synapses"), 1):
            save(root / f"{kind}/{index:02}.png", np.where(labels == value, 255, 0).astype(np.uint8))
        truth[f"raw/{index:02}"] = labels
    return Truth(truth, numbered(4), 20, masks="labels")


def leaves(root: Path) -> Truth:
    """Masks as JPEG, one folder deeper than the one that was unpacked."""
    truth = {}
    for index, (image, labels) in enumerate(scenes(16)):
        save(root / f"data/images/{index:05}.jpg", image)
        save(root / f"data/masks/{index:05}.jpg", Image.fromarray(labels * 255), quality=80)
        truth[f"data/images/{index:05}"] = labels
    return Truth(truth, BINARY, 16)


def clothes(root: Path) -> Truth:
    """Ids of 25 classes, images and masks as PNG and again as JPEG; other names for images than for masks."""
    truth = {}
    for index, (image, labels) in enumerate(scenes(24, 25)):
        mask = Image.fromarray(labels)
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        save(root / f"png_images/IMAGES/img_{index:04}.png", image)
        save(root / f"jpeg_images/IMAGES/img_{index:04}.jpeg", image)
        save(root / f"png_masks/MASKS/seg_{index:04}.png", mask)
        save(root / f"jpeg_masks/MASKS/seg_{index:04}.jpeg", labels)
        truth |= dict.fromkeys((f"{kind}_images/IMAGES/img_{index:04}" for kind in ("png", "jpeg")), labels)
    return Truth(truth, numbered(25), 24, masks="png_masks")


def weeds(root: Path) -> Truth:
    truth = {}
    for index, (image, labels) in enumerate(scenes(22, 3)):
        place, name = f"dataset{1 + index // 11}", f"{index % 11:05}"
        save(root / place / f"rgb/{name}.png", image)
        save(root / place / f"label/{name}.png", labels)
        truth[f"{place}/rgb/{name}"] = labels
    return Truth(truth, numbered(3), 22, masks="*/label")


def football(root: Path) -> Truth:
    """Frames of a video, with masks of eleven colours beside them."""
    truth = {}
    colors = [(0, 0, 0), (27, 71, 151), (51, 221, 255), (111, 48, 253), (137, 126, 126), (153, 223, 219)]
    colors += [(201, 19, 223), (238, 171, 171), (254, 233, 3), (255, 0, 29), (255, 159, 0)]
    for index, (image, labels) in enumerate(scenes(20, 11), 1):
        save(root / f"images/Frame 1  ({index}).jpg", image)
        save(root / f"images/Frame 1  ({index}).jpg___fuse.png", np.array(colors, np.uint8)[labels])
        truth[f"images/Frame 1  ({index})"] = labels
    return Truth(truth, numbered(11), 20)


def yolo_polygons(root: Path) -> Truth:
    """A raw folder: polygons of rectangles as text, and data.yaml."""
    truth, val, random = {}, set(), np.random.default_rng(0)
    for index, (image, _) in enumerate(scenes(16)):
        split, labels, lines = "valid" if index >= 12 else "train", np.zeros((SIDE, SIDE), np.uint8), []
        for number in range(2):
            top, left = random.integers(2, 10, 2) + 30 * number
            labels[top : top + 16, left : left + 20] = number + 1
            corners = [(left, top), (left + 20, top), (left + 20, top + 16), (left, top + 16)]
            lines.append(" ".join(map(str, [number, *(value / SIDE for corner in corners for value in corner)])))
        save(root / split / f"images/{index:03}.jpg", image)
        (root / split / "labels").mkdir(exist_ok=True)
        (root / split / f"labels/{index:03}.txt").write_text("\n".join(lines) + "\n")
        truth[f"images/{split}/{index:03}"] = labels  # in the copy that is imported
        if split == "valid":
            val.add(f"images/{split}/{index:03}")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['manhole', 'pothole']\n"
    )
    return Truth(truth, ["background", "manhole", "pothole"], 16, val=frozenset(val))


FOLDERS: Sequence[Callable[[Path], Truth]] = (
    *(cracks_with_soft_edges, cracks_with_strays, magnetic_tiles, wounds, potholes, electron_microscopy),
    *(leaves, clothes, weeds, football, yolo_polygons),
)
