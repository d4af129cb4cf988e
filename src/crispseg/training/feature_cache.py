"""Features of a frozen backbone, computed once and read from disk instead of images."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from crispseg.data.loading import Batches, with_keys
from crispseg.errors import CrispsegError
from crispseg.io.progress import print_lines, progress
from crispseg.models import SegmentationModel
from crispseg.training.config import TrainConfig
from crispseg.training.task import Batch, SegmentationTask

LABELS = "labels"
Record = dict[str, Tensor]  # `labels` `(H, W)` uint8, and features `(h, w, C)` by index; or a batch of them
Key = int | tuple[int, int]  # index of a val sample, or epoch and index of a training sample


class CachedSamples(Dataset[Record]):
    """Records of a split, one file each.

    Args:
        images: loader of the images.
        folder: folder of the files, which is created.
        versions: number of augmented versions of a training sample; epoch e uses version e modulo this. None for val.
    """

    def __init__(self, images: Batches, folder: Path, versions: int | None = None) -> None:
        self.images, self.folder, self.versions = images, folder, versions
        self.keys: Sequence[Key] = range(len(self))
        if versions:
            self.keys = [*product(range(versions), self.keys)]
        folder.mkdir()

    def __len__(self) -> int:
        return len(self.images.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> Record:
        return load_file(self.file(key))

    def file(self, key: Key) -> Path:
        name = f"{key[0] % (self.versions or 1)}-{key[1]}" if isinstance(key, tuple) else str(key)
        return self.folder / f"{name}.safetensors"


class CachedTask(SegmentationTask):
    """Task whose batches are records, computed before the first step.

    Args:
        loaders: loaders of training and val images.
        folder: empty folder for the records.
        val_sizes: sizes `(H, W)` of the val images.

    Attributes:
        loaders: loaders of the records.
    """

    def __init__(
        self,
        model: SegmentationModel,
        loss: nn.Module,
        config: TrainConfig,
        loaders: tuple[Batches, Batches],
        folder: Path,
        val_sizes: Sequence[tuple[int, int]],
        console: Console,
    ) -> None:
        super().__init__(model, loss, config)
        versions = min(config.cache_versions, config.epochs or config.cache_versions)
        self.splits = CachedSamples(loaders[0], folder / "train", versions), CachedSamples(loaders[1], folder / "val")
        train, val = self.splits
        self.loaders = with_keys(loaders[0], dataset=train), with_keys(loaders[1], dataset=val)
        self.val_sizes = val_sizes
        self.console = console

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a copy for averaged weights does not need; a console cannot be copied."""
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("console", "loaders", "splits")}

    def configure_optimizers(self) -> Any:
        self.compute()  # the model is on its device; Lightning starts the data workers, which read files, in `super()`
        return super().configure_optimizers()

    def compute(self) -> None:
        """Compute and write all records; a decoder that needs images, or too many records, raise a `CrispsegError`."""
        train, val = self.splits
        first, image = (next(self.records(split, split.keys[:1])) for split in self.splits)
        with self.replayed(default_collate([image])) as (nothing, _), self.trainer.precision_plugin.forward_context():
            if not self._logits(nothing).isfinite().all():
                line = f"is true, but {self.model.info.name} needs images besides features; set it to false"
                raise CrispsegError(line, "cache_features")
        areas = [math.prod(size) for size in self.val_sizes]
        crop_bytes = sum(values.nbytes for values in first.values())
        image_bytes = sum(values.nbytes for values in image.values())
        needed = (len(train.keys) * crop_bytes + sum(areas) / areas[0] * image_bytes) / 1e9
        free = shutil.disk_usage(train.folder).free / 1e9
        if needed > min(self.config.cache_limit, free):
            limits = f"cache_limit is {self.config.cache_limit:g} GB, and {free:.3g} GB are free in {self.config.out}"
            remedy = "raise it, choose another out, or give a smaller cache_versions, augment.repeat or augment.crop"
            raise CrispsegError(f"is true, but the features need {needed:.3g} GB; {limits}; {remedy}", "cache_features")
        counts = f"{len(train)} training crops in {train.versions} versions and {len(val)} val images"
        print_lines(self.console, [f"features of {counts} take {needed:.2g} GB; they are computed once"])
        for split in self.splits:
            records = zip(split.keys, self.records(split, split.keys), strict=True)
            for key, record in progress(records, "features", len(split.keys), self.console):
                save_file(record, split.file(key))
        self.model.train()

    def records(self, split: CachedSamples, keys: Sequence[Key]) -> Iterator[Record]:
        """Yield the records of samples, computed like in a training or validation step."""
        training = split.versions is not None
        backbone = self.model.train(training).backbone
        maps: list[Tensor] = []
        for images, labels, *_ in with_keys(split.images, keys):
            images = images.to(self.device).contiguous(memory_format=torch.channels_last)
            with (
                torch.set_grad_enabled(training),  # prediction uses other convolutions, see `LeanConv2dSame`
                self.trainer.precision_plugin.forward_context(),
                backbone.body.register_forward_hook(lambda _module, _images, outputs: maps.extend(outputs)),
            ):
                _ = backbone(self.model.padded(images)) if training else self._logits(images)
            for index, truth in enumerate(labels.to(torch.uint8)):
                features = {str(level): batch[index].permute(1, 2, 0).contiguous() for level, batch in enumerate(maps)}
                yield {LABELS: truth, **features}
            maps.clear()

    @contextmanager
    def replayed(self, batch: Record) -> Iterator[Batch]:
        """Yield images of NaN, and the labels; within the block, the backbone returns the features of the batch."""
        labels = batch[LABELS].long().to(self.device)
        nothing = torch.full((1, 1, 1, 1), torch.nan, device=self.device)
        images = nothing.expand(len(labels), self.model.info.in_chans, *labels.shape[1:])
        features = [batch[str(level)].permute(0, 3, 1, 2) for level in range(len(batch) - 1)]  # (N, C, h, w)
        with self.model.backbone.replaying(features):
            yield [images, labels]

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        with self.replayed(batch) as seen:
            return super().training_step(seen, batch_index)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        with self.replayed(batch) as (images, labels):
            self.matrix.update(self._logits(images).argmax(1), labels)
