"""Data loaders with reproducible order and augmentation."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from crispseg.compat import no_errors_of_ended_workers
from crispseg.data.dataset import Sample, SegmentationDataset
from crispseg.data.transforms import Augment, CustomTransform
from crispseg.errors import CrispsegError, one_line
from crispseg.io.images import side_factor
from crispseg.io.parallel import spread
from crispseg.labels import IGNORE
from crispseg.nn import ceil_div

CROPS_A_WINDOW = 16  # area of a large image, in crops, for which an epoch takes one window
WINDOWS_AT_MOST = 64
STEPS_AT_LEAST = 2  # minimum number of steps in an epoch; fewer images are repeated


def times_an_epoch(
    augment: Augment, sizes: Sequence[tuple[int, int]], samples_a_step: int, labelled: Iterable[int]
) -> list[int]:
    """Return how often an epoch uses each image of size `(H, W)`, by `augment.repeat`.

    With auto, an image gives one window for each `CROPS_A_WINDOW` crops of its area, up to `WINDOWS_AT_MOST`. All
    images are then repeated until an epoch has `STEPS_AT_LEAST` steps. Images are skipped if their numbers of
    `labelled` pixels are 0.
    """
    used = [min(pixels, 1) for pixels in labelled]
    if augment.repeat != "auto":
        return [augment.repeat * number for number in used]
    times = used
    if augment.window is not None:
        room = CROPS_A_WINDOW * math.prod(augment.window)
        areas = [math.prod(size) * side_factor(size, augment.longer_side, augment.shorter_side) ** 2 for size in sizes]
        windows = (min(max(int(area / room), 1), WINDOWS_AT_MOST) for area in areas)
        times = [number * once for number, once in zip(windows, used, strict=True)]
    again = ceil_div(STEPS_AT_LEAST * samples_a_step, sum(times))
    return [again * number for number in times]


MAX_WORKERS = max(64, 4 * (os.cpu_count() or 1))  # data workers and devices; 4 for each processor, if these are more

Transform = Callable[[Sample], tuple[Tensor, ...]]
Batches = DataLoader[tuple[Tensor, ...]]


def derived_seed(purpose: str, *parts: int) -> int:
    """Return a 63-bit seed from a purpose, such as "augment", and numbers, such as seed, epoch and index."""
    digest = hashlib.blake2b(repr((purpose, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Augmented(Dataset[tuple[Tensor, ...]]):
    """Split with a random transform: image `(C, H, W)` float32, labels `(H, W)` int64 and further targets.

    Keys are `(epoch, index)`. A sample depends only on its key and the seed, not on the worker. `times` gives the
    number of consecutive indices of each image. With `keep`, images stay in memory after they are read.
    """

    def __init__(
        self, dataset: SegmentationDataset, transform: Transform, seed: int, times: Sequence[int], keep: bool = False
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.images = np.repeat(np.arange(len(times)), times).tolist()
        self.keep = keep
        self._kept: dict[int, Sample] = {}
        seconds = torch.zeros(2, dtype=torch.float64, device="cpu")  # of reading and augmenting
        self.seconds: Tensor = seconds.share_memory_()  # type: ignore[no-untyped-call]  # all workers add to it

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        epoch, index = key
        image = self.images[index]
        with torch.random.fork_rng(devices=[]):
            seed = derived_seed("augment", self.seed, epoch, index)
            torch.default_generator.manual_seed(seed)
            if custom := getattr(self.transform, "custom", None):
                seed_custom(custom, seed)
            began = time.perf_counter()
            sample = self._kept.get(image) or self.dataset[image]
            if self.keep:
                self._kept[image] = sample
            read = time.perf_counter()
            tensors = self.transform(sample)
            self.seconds += torch.tensor([read - began, time.perf_counter() - read], device="cpu")
            return tensors


def seed_custom(custom: CustomTransform, seed: int) -> None:
    """Seed the generators that a custom transform may use; those of its own would be alike in all forked workers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    if hasattr(custom, "set_random_seed"):  # of albumentations
        custom.set_random_seed(seed % 2**32)


class Shuffled(Sampler[tuple[int, int]]):
    """Keys of `Augmented`, shuffled by `(seed, epoch)` and divided equally among the processes of a run.

    A resumed run starts with the epoch and the number of samples of this process in `start`.
    """

    def __init__(self, samples: int, devices: int, seed: int, start: tuple[int, int] = (0, 0)) -> None:
        self.samples, self.devices, self.seed = samples, devices, seed
        self.start = start
        self.epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(self.samples // self.devices, 1)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derived_seed("order", self.seed, self.epoch))
        order = torch.randperm(self.samples, generator=generator).tolist()
        order *= ceil_div(self.devices, self.samples)  # with fewer samples than processes, some are used twice
        mine = order[_rank() :: self.devices][: len(self)]
        skipped = self.start[1] if self.epoch == self.start[0] else 0
        return ((self.epoch, index) for index in mine[skipped:])


class Transformed(Dataset[tuple[Tensor, ...]]):
    """Split with a fixed transform: image `(C, H, W)` float32, labels `(H, W)` int64.

    Its length is rounded up to a `multiple`, the number of processes, by samples with only ignored pixels. Processes
    then get equal shares, and no sample counts twice.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Transform, multiple: int = 1) -> None:
        self.dataset = dataset
        self.transform = transform
        self.multiple = multiple

    def __len__(self) -> int:
        return ceil_div(len(self.dataset), self.multiple) * self.multiple

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, labels = self.transform(self.dataset[min(index, len(self.dataset) - 1)])
        return (image, labels) if index < len(self.dataset) else (image, torch.full_like(labels, IGNORE))


class Share(Sampler[int]):
    """Every `devices`-th of `used` evenly spread indices, starting at the rank of this process; at first of all."""

    def __init__(self, samples: int, devices: int) -> None:
        self.samples, self.devices, self.used = samples, devices, samples

    def __len__(self) -> int:
        return self.used // self.devices

    def __iter__(self) -> Iterator[int]:
        return iter(spread(self.samples, self.used)[_rank() :: self.devices])


def train_loader(
    dataset: SegmentationDataset,
    transform: Transform,
    batch_size: int,
    workers: int,
    *,
    seed: int,
    devices: int = 1,
    start: tuple[int, int] = (0, 0),
    times: Sequence[int] | None = None,
    keep: bool = False,
) -> Batches:
    """Return shuffled, augmented batches; a smaller last batch is dropped unless it is the only one.

    The transform takes all randomness from torch's generator, so that batches do not depend on the number of workers.
    Each process of a distributed run gets its share. A resumed run starts with the epoch and the batch in `start`. See
    `Augmented` for `times`, by default 1 for each image, and `keep`.
    """
    samples = Augmented(dataset, transform, seed, times or [1] * len(dataset), keep)
    sampler = Shuffled(len(samples), devices, seed, (start[0], start[1] * batch_size))
    enough = len(samples) >= batch_size * devices
    generator = torch.Generator().manual_seed(seed)
    return _loader(samples, workers, generator, sampler=sampler, batch_size=batch_size, drop_last=enough)


def eval_loader(dataset: SegmentationDataset, transform: Transform, workers: int, devices: int = 1) -> Batches:
    """Return every sample once, in order and one per batch, because images are evaluated at native size."""
    samples = Transformed(dataset, transform, devices)
    return _loader(samples, workers, sampler=Share(len(samples), devices))


def sample_loader(dataset: SegmentationDataset, workers: int) -> DataLoader[Sample]:
    """Return every sample once, in order and unchanged."""
    return _loader(dataset, workers, batch_size=None, collate_fn=copy, pin_memory=False)


def with_dataset(loader: Batches, dataset: Dataset[Any]) -> Batches:
    """Return batches of another dataset with the same keys."""
    options: dict[str, Any] = {"sampler": loader.sampler, "batch_size": loader.batch_size}
    return _loader(dataset, loader.num_workers, loader.generator, drop_last=loader.drop_last, **options)


def usable_workers(workers: int, pickled: Any) -> tuple[int, list[str]]:
    """Return the number of data workers, 0 if this process cannot start any, and a note that says why."""
    obstacle = obstacle_to_workers(pickled) if workers else None
    return (workers, []) if obstacle is None else (0, [f"workers is 0, because {obstacle}"])


def obstacle_to_workers(pickled: Any) -> str | None:
    """Return why this process cannot start data workers, or None; without fork they need `pickled` in a pickle."""
    if multiprocessing.current_process().daemon:
        return "a daemonic process cannot start others"
    # The method is not read from a context, because that would fix it for the whole program.
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method == "fork":
        return None
    try:
        content = pickle.dumps(pickled)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f"the data cannot be pickled for the start method {method} ({one_line(error)})"
    if b"__main__" in content and not hasattr(sys.modules["__main__"], "__file__"):
        return f"the start method {method} needs code in a file, not of an interactive session"
    return None


def _loader(
    dataset: Dataset[Any], workers: int, generator: torch.Generator | None = None, **options: Any
) -> DataLoader[Any]:
    if not 0 <= workers <= MAX_WORKERS:
        raise CrispsegError(f"workers is {workers}; give a number from 0 to {MAX_WORKERS}")
    # A forked worker would wait for ever for an OpenCV thread pool of this process; workers run in parallel anyway.
    cv2.setNumThreads(1)
    no_errors_of_ended_workers()
    options = {"pin_memory": torch.cuda.is_available(), **options}
    generator = generator or torch.Generator()  # the loader draws seeds of workers; the program's stays as it is
    return DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0, generator=generator, **options)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
