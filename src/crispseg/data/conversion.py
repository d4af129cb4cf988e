"""Conversion of public files to the layouts that are read: nuclei, aerial, and VOC's training set augmented by SBD."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from crispseg.data.dataset import FileDataset, Pair
from crispseg.data.loading import parallel
from crispseg.data.mask_lookup import ColorLookup
from crispseg.data.pairing import read_listing
from crispseg.data.sources import VOC2012, Aerial
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_folder, atomic_path
from crispseg.io.images import find_images, read_image, read_mask, write_image, write_labels
from crispseg.labels import voc_palette

DIGITS = 12
"""Of the 64 that name an image of the Data Science Bowl; no two images have the same."""

AUGMENTED_IMAGES = 10582
"""In VOC's augmented training set."""

_VOC_CLASSES = 21
_SBD_HINT = "the folder of SBD is benchmark_RELEASE/dataset of its benchmark.tgz, with cls/*.mat, train.txt and val.txt"


def convert(name: str, source: Path, folder: Path) -> int:
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
    converter = {"nuclei": _convert_nuclei, "aerial": _convert_aerial}.get(name)
    return converter(source, folder) if converter else 0


def _convert_nuclei(source: Path, folder: Path) -> int:
    """Each folder of stage1_train has an image and a mask for each nucleus; of these an instance mask is made."""
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


def _convert_aerial(source: Path, folder: Path) -> int:
    """Makes tile1_001.jpg and a mask of class ids out of "Tile 1/images/image_part_001.jpg" and a mask in colours."""
    images = _named(
        (f"tile{path.parts[-3].removeprefix('Tile ')}_{path.stem[-3:]}", path)
        for path in _unpacked(source, "Tile */images/image_part_*.jpg")
    )
    if not images:
        return 0
    labels, unlabelled = Aerial(folder).label_set(), (155, 155, 155)
    lookup = ColorLookup(labels.palette, (unlabelled,), refusal="means no class of aerial; unpack it again", if_grey="")
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


class AugmentedVOC(NamedTuple):
    """Masks that were written."""

    folder: Path
    from_voc: int
    from_sbd: int


def augment(root: Path, sbd: Path) -> AugmentedVOC:
    """Write SegmentationClassAug and ImageSets/Segmentation/train_aug.txt into the folder of VOC 2012.

    The images are those of VOC's train and of SBD's train and val, without VOC's val. Images of VOC's own train keep
    VOC's masks, whose borders are finer; the others get SBD's (Hariharan et al.: Semantic contours from inverse
    detectors. ICCV 2011).

    Args:
        root: folder VOCdevkit/VOC2012.
        sbd: folder benchmark_RELEASE/dataset of SBD.

    Raises:
        CrispsegError: a folder is not what it should be, a file is missing or damaged, or the masks are there already.
    """
    target, lists = root / "SegmentationClassAug", root / "ImageSets" / "Segmentation"
    own, val = (_listed(lists / f"{split}.txt", VOC2012(root).hint) for split in ("train", "val"))
    names = sorted((own | _listed(sbd / "train.txt", _SBD_HINT) | _listed(sbd / "val.txt", _SBD_HINT)) - val)
    if target.exists():
        raise CrispsegError(f"{target} is there already; remove it to write it again")
    with atomic_folder(target) as folder:

        def write(name: str) -> None:
            if name not in own:
                write_labels(folder / f"{name}.png", _read_sbd(sbd / "cls" / f"{name}.mat"), voc_palette(_VOC_CLASSES))
                return
            mask = root / "SegmentationClass" / f"{name}.png"
            if not mask.is_file():
                raise CrispsegError(f"{mask} is missing, though train.txt names it; restore VOC 2012")
            shutil.copyfile(mask, folder / f"{name}.png")

        list(parallel(write, names, "Writing masks"))
    with atomic_path(lists / "train_aug.txt") as file:
        file.write_text("\n".join(names) + "\n", encoding="utf-8")
    return AugmentedVOC(target, len(own & set(names)), len(set(names) - own))


def listed_masks(sbd: Path, split: str) -> list[Path]:
    """Return the masks of SBD's own train or val.

    Raises:
        CrispsegError: the list or one of its masks is missing.
    """
    masks = [sbd / "cls" / f"{name}.mat" for name in sorted(_listed(sbd / f"{split}.txt", _SBD_HINT))]
    if lost := [mask for mask in masks if not mask.is_file()]:
        raise CrispsegError(f"{len(lost)} of {len(masks)} masks of '{split}' are missing, first {lost[0]}; {_SBD_HINT}")
    return masks


def _read_sbd(path: Path) -> NDArray[np.uint8]:
    """The class ids `(H, W)` of one of SBD's files."""
    if not path.is_file():
        raise CrispsegError(f"{path} is missing; {_SBD_HINT}")
    try:
        mask: NDArray[np.uint8] = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
        if mask.ndim != 2 or mask.max() >= _VOC_CLASSES:
            raise ValueError(f"values up to {mask.max()}, not 0 to {_VOC_CLASSES - 1}")
    except Exception as error:  # SciPy raises almost anything on broken data
        raise CrispsegError(f"{path} is none of SBD's masks ({one_line(error)}); unpack SBD again") from None
    return mask


def _listed(listing: Path, hint: str) -> set[str]:
    return {line.split()[0] for line in read_listing(listing, hint)}
