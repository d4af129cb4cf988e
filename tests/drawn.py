"""Drawn images with exact masks, as files: own data for all tests that need some."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import Folder

NAMES = (
    *("road", "pavement", "building", "fence", "sky", "tree"),
    *("terrain", "car", "pedestrian", "pole", "sign", "lane marking"),
)
BANDS = ("sky", "building", "terrain", "pavement", "road")
"""From top to bottom."""
COLORS = np.random.default_rng(0).integers(40, 216, (len(NAMES), 3))


def draw(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image `(height, width, 3)` and class ids `(height, width)`; every class is in most images."""
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    edges = np.linspace(0, height, len(BANDS) + 1) + random.uniform(-0.05, 0.05, len(BANDS) + 1) * height
    for band, top in zip(BANDS, edges, strict=False):
        labels[max(int(top), 0) :] = NAMES.index(band)
    for name in ("fence", "car", "pedestrian", "sign", "lane marking"):
        x, y = random.uniform(0.05, 0.8, 2) * (width, height)
        w, h = random.uniform(0.1, 0.25, 2) * (width, height)
        cv2.rectangle(labels, (int(x), int(y)), (int(x + w), int(y + h)), NAMES.index(name), -1)
    center = random.uniform(0.2, 0.8, 2) * (width, height)
    cv2.circle(labels, (int(center[0]), int(center[1])), height // 8, NAMES.index("tree"), -1)
    for x in random.uniform(0.05, 0.9, 2) * width:
        labels[height // 4 : 3 * height // 4, int(x) : int(x) + 2] = NAMES.index("pole")
    image = COLORS[labels] + random.normal(0, 12, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), labels


@cache
def drawn(train: int = 1, val: int = 1, test: int = 0, height: int = 64, width: int = 96) -> Folder:
    """Folders with so many images in each split. They are there until the process ends."""
    root = Path(tempfile.mkdtemp(dir=_place()))
    for first, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        if not count:
            continue
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)  # the same with defaults named
        for index in range(count):
            image, labels = draw(1000 * first + index, height, width)
            Image.fromarray(image).save(root / "images" / split / f"{split}_{index:04}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"{split}_{index:04}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return Folder(root=str(root), classes=str(root / "classes.txt"), copies="names")


def as_flags(data: Folder) -> list[str]:
    """What the command line says for such data."""
    return ["--data=folder", f"--data.root={data.root}", f"--data.classes={data.classes}", "--data.copies=names"]


@cache
def _place() -> Path:
    place, process = Path(tempfile.mkdtemp(prefix="crispseg-drawn-")), os.getpid()
    atexit.register(lambda: shutil.rmtree(place) if os.getpid() == process else None)  # not in forked processes
    return place
