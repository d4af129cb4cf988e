"""From what is unpacked from the public archives of nuclei and aerial to the layout in which they are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data.dataset import FileDataset, Pair
from crispseg.data.loading import parallel
from crispseg.data.mask_lookup import ColorLookup
from crispseg.data.sources import official_classes
from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_folder
from crispseg.io.images import find_images, read_image, read_mask, write_image, write_labels
from crispseg.labels import Color, LabelSet

DIGITS = 12
"""Of the 64 that name an image of the Data Science Bowl; no two images have the same."""

UNLABELLED: Color = (155, 155, 155)
"""In the public masks of aerial."""


def arrange(name: str, source: Path, folder: Path) -> int:
    """Write the images and masks of a data set to a new folder, which appears when it is complete.

    Args:
        name: nuclei or aerial; of others nothing is written.
        source: folder of what was unpacked, or the one that it lies in.
        folder: the root to be.

    Returns:
        The number of images; 0 where nothing of the archive is in `source`.

    Raises:
        CrispsegError: files are missing, broken or of another size than belongs to them, or there twice; or `folder`
            holds something.
    """
    return _ARRANGE[name](source, folder) if name in _ARRANGE else 0


def _nuclei(source: Path, folder: Path) -> int:
    """An image and an instance mask for each folder of stage1_train, which has an image and a mask for each nucleus."""
    cells = _named((path.parent.name[:DIGITS], path.parent) for path in _unpacked(source, "stage1_train/*/masks"))
    if not cells:
        return 0
    with atomic_folder(folder) as new:
        (new / "instances").mkdir()

        def write(name: str) -> None:
            image, numbers = _read_cell(cells[name])
            write_image(new / "images" / f"{name}.png", image)
            Image.fromarray(numbers).save(new / "instances" / f"{name}.png")

        return len(list(parallel(write, cells, "Numbering nuclei")))


def _read_cell(cell: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """An image, `(H, W)` where it is grey, and its nuclei `(H, W)`, numbered from 1 in the order of the masks' names.

    Where masks overlap, the first one counts.
    """
    files = find_images(cell / "images")
    if len(files) != 1:
        raise CrispsegError(f"{cell / 'images'} holds {len(files)} images, not one; unpack the archive again")
    image = read_image(files[0])
    numbers = np.zeros(image.shape[:2], np.uint16)
    for number, file in enumerate(find_images(cell / "masks"), 1):
        mask = read_mask(file)
        inside = mask > 0 if mask.ndim == 2 else mask.any(axis=2)
        if inside.shape != numbers.shape:
            raise CrispsegError(f"{file} is not of the size of its image {files[0]}; unpack the archive again")
        numbers[inside & (numbers == 0)] = number
    return image[..., 0] if (image == image[..., :1]).all() else image, numbers


def _aerial(source: Path, folder: Path) -> int:
    """Makes tile1_001.jpg and a mask of class ids out of "Tile 1/images/image_part_001.jpg" and a mask in colours."""
    images = _named(
        (f"tile{path.parts[-3].removeprefix('Tile ')}_{path.stem[-3:]}", path)
        for path in _unpacked(source, "Tile */images/image_part_*.jpg")
    )
    if not images:
        return 0
    classes = official_classes("aerial")
    labels = LabelSet(tuple(one.name for one in classes), tuple(one.color for one in classes))
    lookup = ColorLookup(labels.palette, (UNLABELLED,), refusal="means no class of aerial; unpack it again", if_grey="")
    pairs = [Pair(name, image, image.parents[1] / "masks" / f"{image.stem}.png") for name, image in images.items()]
    public = FileDataset(pairs, labels, lookup)
    with atomic_folder(folder) as new:
        (new / "images").mkdir()

        def write(index: int) -> None:
            shutil.copyfile(pairs[index].image, new / "images" / f"{pairs[index].name}.jpg")
            write_labels(new / "masks" / f"{pairs[index].name}.png", public.read_labels(index), labels.palette)

        return len(list(parallel(write, range(len(pairs)), "Reading colours")))


def _unpacked(source: Path, pattern: str) -> Iterator[Path]:
    """What there is in a folder, or in one that stands in it, as archives do; what lies deeper is not gone through."""
    return chain(source.glob(pattern), source.glob(f"*/{pattern}"))


def _named(found: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Paths by the names that their files will have, in order."""
    paths: dict[str, Path] = {}
    for name, path in sorted(found):
        if name in paths:
            raise CrispsegError(f"{paths[name]} and {path} would both be {name}; keep one of them")
        paths[name] = path
    return paths


_ARRANGE: dict[str, Callable[[Path, Path], int]] = {"nuclei": _nuclei, "aerial": _aerial}
