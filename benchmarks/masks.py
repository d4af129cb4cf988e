"""Part of scripts that take `--masks`: masks of class ids, of built-in street scenes or from a folder.

By default they are 480×360 pixels of built-in scenes, whose lane markings are made road, as CamVid's 11 classes have
them; nothing is ignored. A folder's masks are brought to that size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from processes import positive

from crispseg.data.scenes import render_scene
from crispseg.data.scenes.painter import Kind
from crispseg.errors import CrispsegError
from crispseg.io.images import find_images, read_mask
from crispseg.labels import IGNORE

Labels = NDArray[np.uint8]


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that `asked_masks` reads."""
    parser.add_argument("--masks", type=Path, help="folder of real ones, of class ids; by default built-in scenes")
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
        return scene_masks(given.count, *size)
    return masks_of(given.masks, given.count, *size, given.ignored)


def scene_masks(count: int, height: int, width: int) -> list[Labels]:
    """Masks `(H, W)` of built-in scenes, of 11 classes at most."""
    masks = [render_scene(seed, (height, width))[1] for seed in range(count)]
    return [np.where(mask == Kind.MARKING, np.uint8(Kind.ROAD), mask) for mask in masks]


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
