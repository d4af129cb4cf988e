"""The augmented training set of PASCAL VOC 2012, made from SBD's masks.

Hariharan et al.: Semantic contours from inverse detectors. ICCV 2011. As is usual, the images to train on are those of
VOC's train and of SBD's train and val, without those of VOC's val: 10582.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from crispseg.data.loading import parallel
from crispseg.data.pairing import read_listing
from crispseg.data.sources import VOC2012, official_classes
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_folder, atomic_path
from crispseg.io.images import write_labels
from crispseg.labels import voc_palette

IMAGES = 10582
"""In the augmented training set."""

_CLASSES = len(official_classes(VOC2012.name))
_HINT = "the folder of SBD is benchmark_RELEASE/dataset of its benchmark.tgz, with cls/*.mat, train.txt and val.txt"


class AugmentedVOC(NamedTuple):
    """What was written."""

    folder: Path
    from_voc: int
    from_sbd: int


def augment(root: Path, sbd: Path, workers: int | None = None) -> AugmentedVOC:
    """Write SegmentationClassAug and ImageSets/Segmentation/train_aug.txt into the folder of VOC 2012.

    Images of VOC's own train split keep VOC's masks, whose borders are finer; the others get SBD's.

    Args:
        root: folder VOCdevkit/VOC2012.
        sbd: folder benchmark_RELEASE/dataset of SBD.
        workers: threads; by default one a processor, at most 8.

    Raises:
        CrispsegError: a folder is not what it should be, a file is missing or damaged, or the masks are there already.
    """
    target, lists = root / "SegmentationClassAug", root / "ImageSets" / "Segmentation"
    own, val = (_names(lists / f"{split}.txt", VOC2012(root).hint) for split in ("train", "val"))
    names = sorted((own | _names(sbd / "train.txt", _HINT) | _names(sbd / "val.txt", _HINT)) - val)
    if target.exists():
        raise CrispsegError(f"{target} is there already; remove it to make it anew")
    with atomic_folder(target) as folder:

        def write(name: str) -> None:
            if name not in own:
                write_labels(folder / f"{name}.png", read_mat(sbd / "cls" / f"{name}.mat"), voc_palette(_CLASSES))
                return
            mask = root / "SegmentationClass" / f"{name}.png"
            if not mask.is_file():
                raise CrispsegError(f"{mask} is missing, though train.txt names it; restore VOC 2012")
            shutil.copyfile(mask, folder / f"{name}.png")

        list(parallel(write, names, "Writing masks", workers))
    with atomic_path(lists / "train_aug.txt") as file:
        file.write_text("\n".join(names) + "\n", encoding="utf-8")
    return AugmentedVOC(target, len(own & set(names)), len(set(names) - own))


def listed_masks(sbd: Path, split: str) -> list[Path]:
    """The masks of SBD's own train or val.

    Raises:
        CrispsegError: the list or one of its masks is missing.
    """
    masks = [sbd / "cls" / f"{name}.mat" for name in sorted(_names(sbd / f"{split}.txt", _HINT))]
    if lost := [mask for mask in masks if not mask.is_file()]:
        raise CrispsegError(f"{len(lost)} of {len(masks)} masks of '{split}' are missing, first {lost[0]}; {_HINT}")
    return masks


def read_mat(path: Path) -> NDArray[np.uint8]:
    """The class ids `(H, W)` of one of SBD's files.

    Raises:
        CrispsegError: it is missing or damaged.
    """
    if not path.is_file():
        raise CrispsegError(f"{path} is missing; {_HINT}")
    try:
        mask: NDArray[np.uint8] = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
        if mask.ndim != 2 or mask.max() >= _CLASSES:
            raise ValueError(f"values up to {mask.max()}, not 0 to {_CLASSES - 1}")
    except Exception as error:  # SciPy raises almost anything on broken data
        raise CrispsegError(f"{path} is none of SBD's masks ({one_line(error)}); unpack SBD again") from None
    return mask


def _names(listing: Path, hint: str) -> set[str]:
    return {line.split()[0] for line in read_listing(listing, hint)}
