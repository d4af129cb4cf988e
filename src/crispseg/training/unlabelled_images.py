"""Images without masks: their files, checks before training, and their place in training batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crispseg.config.settings import plural
from crispseg.data import Sample, train_transform
from crispseg.data.examination import pairs_of
from crispseg.data.loading import Augmented, derived_seed
from crispseg.errors import CrispsegError, few
from crispseg.folders.survey import Pair
from crispseg.io.files import digest
from crispseg.io.images import find_images, image_channels, read_image
from crispseg.io.opening import opened
from crispseg.io.parallel import parallel, tried
from crispseg.models.info import ModelInfo
from crispseg.training.config import TrainConfig

OWN_IMAGES = "same"  # value of `unlabelled` for the images of the data that have no mask


def unlabelled_files(config: TrainConfig) -> tuple[list[Path], list[str]]:
    """Return the images without masks of a run, and notes.

    Images and masks of the data's splits are left out, also copies with the same bytes. A missing folder, no image, or
    an image that is damaged or unlike the labelled ones, raises a `CrispsegError`.
    """
    place, channels = str(config.unlabelled), image_channels(config.model.in_chans)
    own = map(Path, config.data.unpaired().get("image-without-mask", ()))
    files = [*own] if place == OWN_IMAGES else find_images(place)
    notes, splits = [], pairs_of(config.data)
    for split, pairs in splits.items():
        copies = _among(files, {pair.image for pair in pairs})
        masks = _among(files, {pair.mask for pair in pairs})
        if copies:
            some = few(sorted(copies), 2)
            notes.append(f"left out because {split} has them: {plural(len(copies), 'image')}, {some}")
        files = [file for file in files if file not in copies | masks]
    if not files:
        remedy = "give a folder of images that are not in train, val or test"
        raise CrispsegError(f"is {place}, which has no images without masks; {remedy}", "unlabelled")
    check = tried(partial(_check, channels=channels, deep=_are_deep(chain(*splits.values()))))
    if errors := [error for error in parallel(check, files, "Checking unlabelled images") if error]:
        some = f"{len(errors)} of {plural(len(files), 'image')} cannot be used, first: {errors[0]}"
        raise CrispsegError(f"is {place}: {some}", "unlabelled")
    return files, [f"unlabelled: {plural(len(files), 'image')} ({place})", *notes]


def _are_deep(pairs: Iterable[Pair]) -> bool:
    """Return whether labelled images have more than 8 bits; data without files have 8."""
    for pair in pairs:
        with opened(pair.image) as raster:
            return raster.bit_depth > 8
    return False


def _among(files: Collection[Path], known: Collection[Path]) -> set[Path]:
    """Return the files with the same bytes as a known one."""
    sizes = {file.stat().st_size for file in known}
    candidates = [file for file in files if file.stat().st_size in sizes]
    sizes_of_candidates = {file.stat().st_size for file in candidates}
    digests = {digest(file) for file in known if file.stat().st_size in sizes_of_candidates}
    return {file for file in candidates if digest(file) in digests}


def _check(path: Path, channels: int, deep: bool) -> None:
    with opened(path) as raster:
        raster.numbers(channels)  # raises for damage and other channels
        if (raster.bit_depth > 8) != deep:
            raise CrispsegError(f"{path} has {raster.bit_depth} bits, unlike the labelled images; convert it")


class WithUnlabelled(Dataset[tuple[Tensor, ...]]):
    """Training samples, each followed by the two views `(2C, H, W)` of an unlabelled image and by their labels.

    These labels are 0 for pixels of the image and 255 for padding. The image and its crop depend only on the seed, the
    epoch and the index. All unlabelled images are used before one is used again.
    """

    def __init__(self, samples: Augmented, files: Sequence[Path], config: TrainConfig, info: ModelInfo) -> None:
        self.samples, self.files, self.seconds = samples, files, samples.seconds
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
