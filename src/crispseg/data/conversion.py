"""PASCAL VOC's training set augmented by the masks of SBD."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from crispseg.data.loading import parallel
from crispseg.data.pairing import read_listing
from crispseg.data.sources import VOC2012
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_folder, atomic_path
from crispseg.io.images import write_labels
from crispseg.labels import voc_palette

_VOC_CLASSES = 21
_SBD_HINT = "the folder of SBD is benchmark_RELEASE/dataset of its benchmark.tgz, with cls/*.mat, train.txt and val.txt"


def augment(root: Path, sbd: Path) -> tuple[int, int]:
    """Write SegmentationClassAug and ImageSets/Segmentation/train_aug.txt into the folder of VOC 2012.

    The images are those of VOC's train and of SBD's train and val, without VOC's val. Images of VOC's own train keep
    VOC's masks, whose borders are finer; the others get SBD's (Hariharan et al.: Semantic contours from inverse
    detectors. ICCV 2011).

    Args:
        root: folder VOCdevkit/VOC2012.
        sbd: folder benchmark_RELEASE/dataset of SBD.

    Returns:
        How many masks are of VOC and how many of SBD.

    Raises:
        CrispsegError: a list or a mask is missing or damaged, or the masks are there already.
    """
    target, lists = root / "SegmentationClassAug", root / "ImageSets" / "Segmentation"
    own, val = (_listed(lists / f"{split}.txt", VOC2012(root).hint) for split in ("train", "val"))
    others = (_listed(sbd / "train.txt", _SBD_HINT) | _listed(sbd / "val.txt", _SBD_HINT)) - val - own
    with atomic_folder(target) as folder:

        def write(name: str) -> None:
            if name in own:
                shutil.copyfile(root / "SegmentationClass" / f"{name}.png", folder / f"{name}.png")
            else:
                write_labels(folder / f"{name}.png", _read_sbd(sbd / "cls" / f"{name}.mat"), voc_palette(_VOC_CLASSES))

        list(parallel(write, own | others, "Writing masks"))
    with atomic_path(lists / "train_aug.txt") as file:
        file.write_text("\n".join(sorted(own | others)) + "\n", encoding="utf-8")
    return len(own), len(others)


def _read_sbd(path: Path) -> NDArray[np.uint8]:
    """The class ids `(H, W)` of one of SBD's files."""
    try:
        mask: NDArray[np.uint8] = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
        if mask.max() >= _VOC_CLASSES:
            raise ValueError(f"values up to {mask.max()}, not 0 to {_VOC_CLASSES - 1}")
    except Exception as error:  # SciPy raises almost anything on broken data
        raise CrispsegError(f"{path} is none of SBD's masks ({one_line(error)}); unpack SBD again") from None
    return mask


def _listed(listing: Path, hint: str) -> set[str]:
    return {line.split()[0] for line in read_listing(listing, hint)}
