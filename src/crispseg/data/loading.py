"""From a split to batches of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crispseg.data.base import IGNORE, Sample, SegmentationDataset
from crispseg.errors import CrispsegError

Transform = Callable[[Sample], tuple[Tensor, Tensor]]


class Transformed(Dataset[tuple[Tensor, Tensor]]):
    """A split whose samples have gone through a transform: image `(C, H, W)` float32, labels `(H, W)` int64.

    Its length is rounded up to a `multiple`, with samples of which every pixel is ignored, so that as many processes
    get equal shares and no sample counts twice.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Transform, multiple: int = 1) -> None:
        self.dataset = dataset
        self.transform = transform
        self.multiple = multiple

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.multiple) * self.multiple

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.transform(self.dataset[min(index, len(self.dataset) - 1)])
        return (image, labels) if index < len(self.dataset) else (image, torch.full_like(labels, IGNORE))


def train_loader(
    dataset: SegmentationDataset, transform: Transform, batch_size: int, workers: int, devices: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches for each of `devices`; a last one that is smaller is left out, unless it is the only one."""
    return _loader(
        Transformed(dataset, transform),
        workers,
        batch_size=batch_size,
        shuffle=True,
        drop_last=len(dataset) >= batch_size * devices,
    )


def eval_loader(
    dataset: SegmentationDataset, transform: Transform, workers: int, devices: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Every sample once, in order, one a batch: images are scored at their own size."""
    return _loader(Transformed(dataset, transform, devices), workers)


def _loader(dataset: Transformed, workers: int, **options: Any) -> DataLoader[tuple[Tensor, Tensor]]:
    if workers < 0:
        raise CrispsegError(f"workers is {workers}; it must be at least 0")
    # A forked worker would wait for ever for OpenCV's thread pool if this process had one; workers are the parallelism.
    cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        **options,
    )
