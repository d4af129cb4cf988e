"""Values for the settings that are auto, from the data and the machine."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from crispseg.data import Augment, SplitReport, class_weights, softened_weights
from crispseg.errors import CrispsegError
from crispseg.inference.tiling import free_bytes
from crispseg.io.images import image_channels
from crispseg.models.info import MIN_SIDE
from crispseg.training.config import TrainConfig
from crispseg.training.precision import has_bf16, on_cuda

CROP = 192
"""Side of the largest crop."""
BATCH = 8
"""Crops of that size in a batch; of larger ones fewer, so that a batch has no more pixels."""
SHARE_OF_MEMORY = 0.25
"""Of what is free, for images that are kept."""
MINUTES = 30.0
"""Default length of a run."""
FEW = 100
"""Images below which their colours are changed: more are seen too seldom in a first training."""
RARE = 0.02
"""Share of the pixels below which a class is found too late without weights."""
STEP = 32
"""Sides of crops are multiples of the coarsest stride."""


def resolved(config: TrainConfig, train: SplitReport) -> TrainConfig:
    """Return the configuration with a value for each auto; docs/defaults.md explains them."""
    augment = resolved_augment(config.augment, train, config.model.in_chans)
    batch_size = config.batch_size
    if batch_size == "auto":
        area = math.prod(augment.window or train.largest)
        batch_size = min(max(BATCH * CROP**2 // area, 1), BATCH)
    changes: dict[str, Any] = {"augment": augment, "batch_size": batch_size}
    if config.precision == "auto":
        changes["precision"] = "bf16" if has_bf16(cuda=on_cuda(config)) else "fp32"
    if config.class_weights == "auto":
        rare = min((share for share in train.shares if share), default=1.0) < RARE
        changes["class_weights"] = "softened" if rare and "cross_entropy" in config.losses else None
    if not (config.epochs or config.iterations or config.minutes):
        changes["minutes"] = MINUTES
    return dataclasses.replace(config, **changes)


def resolved_augment(augment: Augment, train: SplitReport, in_chans: int = 3) -> Augment:
    """Crop, turns and colours by what the training images are."""
    changes: dict[str, Any] = {}
    if augment.crop == "auto":
        side = max(min(train.shorter_side, CROP) // STEP * STEP, MIN_SIDE)
        changes["crop"] = (side, side)
    if augment.turn == "auto":
        changes["turn"] = max(train.lopsided) < 0.4 + 1 / math.sqrt(train.images)  # the second term is chance
    if augment.photometric == "auto":
        changes["photometric"] = "mmseg" if train.images < FEW and in_chans in (1, 3) else False
    return dataclasses.replace(augment, **changes)


def keeps_images(config: TrainConfig, train: SplitReport) -> bool:
    """Whether all training images fit in the memory of each worker, so that they are read only once."""
    channels = image_channels(config.model.in_chans) + 1  # and the mask
    needed = sum(math.prod(size) for size in train.sizes) * channels * max(config.workers, 1) * config.devices
    free = free_bytes(torch.device("cpu"))
    return free is not None and needed <= SHARE_OF_MEMORY * free


def class_weights_of(config: TrainConfig, train: SplitReport) -> Tensor | None:
    """The weights of the classes in cross-entropy, `(classes,)`, by what the training images hold.

    Raises:
        CrispsegError: there is not one for each class.
    """
    if config.class_weights is None:
        return None
    if isinstance(config.class_weights, str):
        weigh = {"balanced": class_weights, "softened": softened_weights}[config.class_weights]
        return torch.from_numpy(weigh(train))
    if len(config.class_weights) != len(train.labels):
        raise CrispsegError(
            f"class_weights has {len(config.class_weights)} values for {len(train.labels)} classes; give one a class"
        )
    return torch.tensor(config.class_weights, dtype=torch.float32)
