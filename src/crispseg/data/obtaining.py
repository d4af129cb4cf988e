"""Getting a public data set: download, unpack, arrange, check; and the augmented training set of PASCAL VOC.

The latter is made from SBD's masks (Hariharan et al., *Semantic contours from inverse detectors*, ICCV 2011). As is
usual, its images are those of VOC's train and of SBD's train and val, without those of VOC's val: 10582.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from crispseg.data.catalogue import Entry, catalogue, readable_splits
from crispseg.data.dataset import DataSource
from crispseg.data.download import Progress, download
from crispseg.data.folder_layout import recognise
from crispseg.data.free.arrange import arrange
from crispseg.data.loading import parallel
from crispseg.data.named import build_data
from crispseg.data.pairing import read_listing
from crispseg.data.sources import VOC2012, official_classes
from crispseg.errors import CrispsegError, did_you_mean, one_line, telling
from crispseg.io.files import atomic_folder, atomic_path, owned
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


def obtain(name: str, out: Path, progress: Progress, say: Callable[[str], None], keep_archives: bool = False) -> Entry:
    """Download a data set and check it, or check a folder of one that cannot be downloaded.

    Args:
        name: of the data set.
        out: folder to download to, or to check; an interrupted download goes on where it broke off.
        progress: called with the progress of the download.
        say: is given lines about what is found and done.
        keep_archives: whether to keep the archives when they are unpacked.

    Returns:
        What is known about the data set.

    Raises:
        CrispsegError: an unknown data set; one that cannot be downloaded and is not in the folder; as `download`.
    """
    if name not in catalogue():
        raise CrispsegError(f"unknown data set '{name}'{did_you_mean(name, catalogue())}")
    entry = catalogue()[name]
    root = out / entry.root
    lines, problem = check_folder(entry, root)
    if problem and (entry.archives or (entry.root != "." and out.is_dir())):
        again = "the same command goes on from what is there"
        with owned(out, *{out / one.folder for one in entry.archives}), telling(lambda: again):
            _arrange(entry, out, say)
            lines, problem = check_folder(entry, root)  # which another process may have completed meanwhile
            if problem and entry.archives:
                say(f"{entry.title}; licence: {entry.licence}; {entry.home}")
                note = "no checksum is published; those of its files are verified when unpacking"
                for archive in (one for one in entry.archives if one.md5 is None):
                    say(f"{archive.file}: {note}")
                say(f"unpacked {download(entry, out, progress, keep_archives)} files")
                _arrange(entry, out, say)
                lines, problem = check_folder(entry, root)
    if problem and not entry.archives:
        empty = not out.is_dir() or not any(out.iterdir())
        raise CrispsegError(
            f"{entry.name} cannot be downloaded from here ({entry.licence}): go to {entry.home}, {entry.get}; "
            + (f"then check {out} by this command" if empty else f"{out} is not it yet: {problem}")
        )
    for line in lines:
        say(line)
    if problem:
        raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
    return entry


def _arrange(entry: Entry, out: Path, say: Callable[[str], None]) -> None:
    """Bring what was unpacked into the layout that is read, if that is another one."""
    if count := arrange(entry.name, out, out / entry.root):
        say(f"wrote {out / entry.root}: {count} images; what was unpacked beside it is not needed any more")


def check_folder(entry: Entry, root: Path) -> tuple[list[str], str]:
    """What a data set's folder holds, a line a split, and what is wrong with it; empty where it is complete."""
    found: dict[str, int] = {}
    faults: dict[str, str] = {}
    try:
        if entry.name == "sbd":
            for split in entry.counts:
                found[split] = len(listed_masks(root, split))
        else:
            splits, faults = readable_splits(_source(entry, root))
            found = {split: len(dataset) for split, dataset in splits.items()}
    except CrispsegError as error:
        return [], str(error)
    lines = [
        f"{split}: {count} images with masks in {root}, {entry.counts.get(split)} as published"
        for split, count in found.items()
    ]
    problems = list(faults.values())
    for split, count in entry.counts.items():
        if split in found and found[split] < count:
            problems.append(f"'{split}' has {found[split]} of {count} images")
        elif split not in found and split not in faults and split != "test":
            problems.append(f"'{split}' is missing")
    return lines, problems[0] if problems else ""


def _source(entry: Entry, root: Path) -> DataSource:
    """The data source at a root, which may hold one of several layouts."""
    data: Mapping[str, Any] = {}
    if root.is_dir():
        with suppress(CrispsegError):
            data = recognise(root)
    return build_data(data if data.get("name") == entry.name else {"name": entry.name, "root": str(root)})
