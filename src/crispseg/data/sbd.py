"""The augmented training set of PASCAL VOC 2012, made from SBD's masks.

Hariharan et al.: Semantic contours from inverse detectors. ICCV 2011. As is usual, the images to train on are those of
VOC's train and of SBD's train and val, without those of VOC's val: 10582.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.archives import waiting_archive
from crispseg.data.base import read_lines
from crispseg.data.check import parallel
from crispseg.data.voc2012 import AUGMENTED, NAMES
from crispseg.errors import CrispsegError
from crispseg.files import atomic_path
from crispseg.imaging import write_labels
from crispseg.labels import default_palette

IMAGES = 10582
"""In the augmented training set."""

_VOC = "the root of PASCAL VOC 2012 is the folder VOCdevkit/VOC2012"
_SBD = "the folder of SBD is benchmark_RELEASE/dataset of its benchmark.tgz, with cls/*.mat, train.txt and val.txt"


class Augmented(NamedTuple):
    """What was written."""

    folder: Path
    from_voc: int
    from_sbd: int


def augment(root: Path, sbd: Path, threads: int | None = None) -> Augmented:
    """Write SegmentationClassAug and ImageSets/Segmentation/train_aug.txt into the folder of VOC 2012.

    Images of VOC's own train split keep VOC's masks, whose borders are finer; the others get SBD's.

    Args:
        root: folder VOC2012.
        sbd: folder benchmark_RELEASE/dataset.
        threads: by default one a processor, at most 8.

    Raises:
        CrispsegError: a folder is not what it should be, a file is missing or damaged, the masks are there already, or
            SciPy, which reads SBD's files, is not installed.
    """
    target, listing = root / "SegmentationClassAug", root / "ImageSets" / "Segmentation" / f"{AUGMENTED[0]}.txt"
    train, val = (_names(root / "ImageSets" / "Segmentation" / f"{split}.txt", _VOC) for split in ("train", "val"))
    every = {name for split in ("train", "val") for name in _names(sbd / f"{split}.txt", _SBD)}
    if target.exists():
        raise CrispsegError(f"{target} is there already; remove it to make it anew")
    own = set(train)
    names = sorted((own | every) - set(val))

    temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{target.name}-"))
    try:

        def write(name: str) -> None:
            path = temporary / f"{name}.png"
            if name not in own:
                write_labels(path, read_mat(sbd / "cls" / f"{name}.mat"), default_palette(len(NAMES)))
                return
            mask = root / "SegmentationClass" / f"{name}.png"
            if not mask.is_file():
                raise CrispsegError(f"{mask} is missing, though train.txt names it; restore VOC 2012")
            shutil.copyfile(mask, path)

        for _ in parallel(write, names, "Writing masks", threads):
            pass
        temporary.chmod(0o755)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    with atomic_path(listing) as file:
        file.write_text("\n".join(names) + "\n", encoding="utf-8")
    return Augmented(target, len(own & set(names)), len(set(names) - own))


def read_mat(path: Path) -> NDArray[np.uint8]:
    """The class ids `(H, W)` of one of SBD's files.

    Raises:
        CrispsegError: it is missing or damaged, or SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise CrispsegError("SBD's masks are MATLAB files, which SciPy reads; pip install 'crispseg[sbd]'") from None
    if not path.is_file():
        raise CrispsegError(f"{path} is missing; {_SBD}")
    try:
        mask: NDArray[np.uint8] = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # SciPy raises almost anything on broken data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CrispsegError(f"{path} is none of SBD's masks ({reason}); unpack SBD again") from None
    if mask.ndim != 2 or mask.max() >= len(NAMES):
        raise CrispsegError(f"{path} holds values up to {mask.max()}, not 0 to {len(NAMES) - 1}; unpack SBD again")
    return mask


def _names(listing: Path, hint: str) -> list[str]:
    if not listing.is_file():
        raise CrispsegError(f"{listing} is missing{waiting_archive(listing)}; {hint}")
    return [line.split()[0] for line in read_lines(listing)]
