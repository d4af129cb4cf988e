"""What a run takes from its data and its machine where the configuration says auto."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from crispseg.data import Augment, SplitReport
from crispseg.inference.protocols import MIN_SIDE
from crispseg.training.config import TrainConfig
from crispseg.training.precision import has_bf16
from crispseg.training.trainer import on_cuda

CROP = 256
"""Side of the largest crop."""
BATCH = 8
"""Crops of that size in a batch; of larger ones fewer, so that a batch has no more pixels."""
MINUTES = 30.0
"""Length of a run that is told none."""
STEP = 32
"""Sides of crops are multiples of the coarsest stride."""


def fitted(config: TrainConfig, train: SplitReport) -> TrainConfig:
    """The configuration with a value in each place that said auto. See docs/defaults.md for what it is made of."""
    augment = fitted_augment(config.augment, train)
    batch_size = config.batch_size
    if batch_size == "auto":
        area = math.prod(augment.crop if isinstance(augment.crop, tuple) else train.largest)
        batch_size = min(max(BATCH * CROP**2 // area, 1), BATCH)
    changes: dict[str, Any] = {"augment": augment, "batch_size": batch_size}
    if config.precision == "auto":
        changes["precision"] = "bf16" if has_bf16(cuda=on_cuda(config)) else "fp32"
    if config.class_weights == "auto":
        changes["class_weights"] = "softened" if "cross_entropy" in config.losses else None
    if not (config.epochs or config.iterations or config.minutes):
        changes["minutes"] = MINUTES
    return dataclasses.replace(config, **changes)


def fitted_augment(augment: Augment, train: SplitReport) -> Augment:
    """Crop and turns by what the training images are."""
    changes: dict[str, Any] = {}
    if augment.crop == "auto":
        side = max(min(train.shorter_side, CROP) // STEP * STEP, MIN_SIDE)
        changes["crop"] = (side, side)
    if augment.turn == "auto":
        changes["turn"] = max(train.lopsided) < 0.4 + 1 / math.sqrt(train.images)  # the second term is chance
    return dataclasses.replace(augment, **changes)
