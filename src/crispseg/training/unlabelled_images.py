"""Images without masks: their files, checks before training, and their place in training batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crispseg.config.settings import plural
from crispseg.data import Folder, Sample, train_transform
from crispseg.data.examination import pairs_of
from crispseg.data.loading import Augmented, derived_seed
from crispseg.errors import CrispsegError, few
from crispseg.io.files import digest
from crispseg.io.images import find_images, image_channels, read_image
from crispseg.io.opening import opened
from crispseg.io.parallel import parallel, tried
from crispseg.models.info import ModelInfo
from crispseg.training.config import TrainConfig

SAME = "same"  # value of `unlabelled` for the images of the data that have no mask


def unlabelled_files(config: TrainConfig) -> tuple[list[Path], list[str]]:
    """Return the images without masks of a run, and notes.

    Images and masks of the data's splits are left out, also copies with the same bytes. A missing folder, no image, or
    an image that is damaged or unlike the labelled ones, raises a `CrispsegError`.
    """
    place, source, channels = str(config.unlabelled), config.data, image_channels(config.model.in_chans)
    if place == SAME:
        left = [Path(file) for file in source.faults()["image-without-mask"]] if isinstance(source, Folder) else []
    else:
        left = find_images(place)
    if not left:
        raise CrispsegError(f"is {place}, which has no images without masks; give a folder of images", "unlabelled")
    notes, labelled = [], list[Path]()
    for split, pairs in pairs_of(source).items():
        labelled += [Path(pair.image) for pair in pairs]
        known, masks = (_among(left, {Path(pair[kind]) for pair in pairs}) for kind in (1, 2))
        left = [file for file in left if file not in known | masks]
        if known:
            notes.append(f"left out because {split} has them: {plural(len(known), 'image')}, {few(sorted(known), 2)}")
    if not left:
        raise CrispsegError(f"is {place}, but all its images are in train, val or test; give others", "unlabelled")
    depths = {_bit_depth(file) for file in labelled[:1]}  # without files they have 8
    check = tried(partial(_check, channels=channels, deep=max(depths, default=8) > 8))
    if bad := [error for error in parallel(check, left, "Checking unlabelled images") if error]:
        some = f"{len(bad)} of {plural(len(left), 'image')} cannot be used, first: {bad[0]}"
        raise CrispsegError(f"is {place}: {some}", "unlabelled")
    return left, [f"unlabelled: {plural(len(left), 'image')} ({place})", *notes]


def _among(files: Collection[Path], known: Collection[Path]) -> set[Path]:
    """Return the files with the same bytes as a known one."""
    shared = {file.stat().st_size for file in files} & {file.stat().st_size for file in known}
    some, others = ([file for file in each if file.stat().st_size in shared] for each in (files, known))
    digests = {*map(digest, others)}
    return {file for file in some if digest(file) in digests}


def _bit_depth(path: Path) -> int:
    with opened(path) as raster:
        return raster.bit_depth


def _check(path: Path, channels: int, deep: bool) -> None:
    with opened(path, whole=True) as raster:
        raster.check(channels)
        if (raster.bit_depth > 8) != deep:
            raise CrispsegError(f"{path} has {raster.bit_depth} bits, unlike the labelled images; convert it")


class WithUnlabelled(Dataset[tuple[Tensor, ...]]):
    """Training samples, each followed by the two views `(2C, H, W)` of an unlabelled image and by their labels.

    These labels are 0 for pixels of the image and 255 for padding. The image and its crop depend only on the seed, the
    epoch and the index. All unlabelled images are used before one is used again.
    """

    def __init__(self, samples: Augmented, files: Sequence[Path], config: TrainConfig, info: ModelInfo) -> None:
        self.samples, self.files = samples, files
        self.channels, self.value_range = image_channels(info.in_chans), info.value_range
        norm, custom = (info.mean, info.std, info.in_chans), getattr(samples.transform, "custom", None)
        self.transform = train_transform(config.augment, *norm, custom=custom, two_views=True)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        image, *truth = self.samples[key]
        epoch, index = key
        turn, place = divmod(epoch * len(self) + index, len(self.files))
        file = self.files[_order(self.samples.seed, turn, len(self.files))[place]]
        pixels = read_image(file, self.channels, self.value_range)
        sample = Sample(pixels, np.zeros(pixels.shape[:2], np.uint8), file.stem)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed("unlabelled", self.samples.seed, epoch, index))
            views = self.transform(sample)
        return image, *truth, *views


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(derived_seed("unlabelled order", seed, turn))
    return torch.randperm(count, generator=generator).tolist()
