"""Part of scripts that take `--masks`: masks of class ids, drawn or from a folder.

By default they are 480×360 pixels and drawn, of 11 classes; nothing is ignored. A folder's masks are brought to that
size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from processes import positive

from crispseg.errors import CrispsegError
from crispseg.io.images import find_images, read_mask
from crispseg.labels import IGNORE

Labels = NDArray[np.uint8]


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that `asked_masks` reads."""
    parser.add_argument("--masks", type=Path, help="folder of real ones, of class ids; by default drawn ones")
    parser.add_argument("--ignored", type=int, default=IGNORE, help="value of their ignored pixels; 255 is one always")
    parser.add_argument("--count", type=positive, default=20, help="of the masks, at most")
    parser.add_argument("--height", type=positive, default=360, help="of the masks, pixels")
    parser.add_argument("--width", type=positive, default=480)


def asked_masks(given: argparse.Namespace) -> list[Labels]:
    """Masks `(H, W)` as a command line asks for them; 255 is ignored.

    Raises:
        CrispsegError: see `masks_of`.
    """
    size = given.height, given.width
    if given.masks is None:
        return [drawn_mask(seed, *size) for seed in range(given.count)]
    return masks_of(given.masks, given.count, *size, given.ignored)


def drawn_mask(seed: int, height: int, width: int, classes: int = 11) -> Labels:
    """A mask `(H, W)` of bands, rectangles and thin poles, each of a class by lot."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for top in np.sort(random.integers(0, height, 5)):
        mask[top:] = random.integers(classes)
    for _ in range(30):
        left, top = random.uniform(0, 1, 2) * (width, height)
        right, bottom = (left, top) + random.uniform(0.02, 0.2, 2) * (width, height)
        cv2.rectangle(mask, (int(left), int(top)), (int(right), int(bottom)), int(random.integers(classes)), -1)
    for left, top in (random.uniform(0, 0.8, (6, 2)) * (width, height)).astype(int):
        mask[top : top + height // 3, left : left + 3] = random.integers(classes)
    return mask


def masks_of(folder: Path, count: int, height: int, width: int, ignored: int) -> list[Labels]:
    """The first masks of a folder, at this size; `ignored` becomes 255.

    Raises:
        CrispsegError: no such folder, none in it, or one that holds no class ids.
    """
    masks = []
    for path in find_images(folder)[:count]:
        mask = read_mask(path)
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise CrispsegError(f"{path} holds no class ids; give a folder of grey or palette masks")
        resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        masks.append(np.where(resized == ignored, np.uint8(IGNORE), resized))
    if not masks:
        raise CrispsegError(f"{folder} holds no masks; give a folder of grey or palette masks")
    return masks
