"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from crispseg.models import SegmentationModel
from crispseg.training.config import TrainConfig

DROP = 0.1
"""Factor of the learning rate at each of `TrainConfig.lr_drops`."""


def build_optimizer(model: SegmentationModel, config: TrainConfig) -> Optimizer:
    """SGD or AdamW, with the backbone's learning rate scaled and, if asked, norms and biases free of weight decay."""
    groups: list[dict[str, Any]] = []
    for part, parameters in model.parameter_groups().items():
        lr = config.lr * (config.backbone_lr_factor if part == "backbone" else 1.0)
        kinds: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
        for parameter in parameters:
            kinds[not config.decay_norms_and_biases and parameter.ndim <= 1].append(parameter)  # norms and biases
        for members, weight_decay in zip(kinds, (config.weight_decay, 0.0), strict=True):
            if members:
                groups.append({"params": members, "lr": lr, "weight_decay": weight_decay, "name": part})
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    # In one pass over the weights; Lightning refuses to clip gradients then.
    return AdamW(groups, lr=config.lr, fused=config.clip is None)


def learning_rate_factor(
    config: TrainConfig, progress: Callable[[int], float], steps_per_epoch: int = 1
) -> Callable[[int], float]:
    """Factor of the learning rate at each optimizer step: linear warm-up times a decay.

    `poly` decays at every step, (1 - progress)^power; `poly_epoch` keeps the value of the epoch's first step; `cosine`
    is (1 + cos(π · progress)) / 2; `step` is multiplied by 0.1 where a share of the training, one of `lr_drops`, lies
    behind.

    Args:
        config: the run.
        progress: the share of the training that lies behind before a step; of steps, a quotient `step / total`.
        steps_per_epoch: optimizer steps of one epoch, for `poly_epoch`.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
        behind = progress(step - step % steps_per_epoch if config.schedule == "poly_epoch" else step)
        return float(warm * _decay(config, behind))

    return factor


def _decay(config: TrainConfig, behind: float) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        # Both sides are quotients rounded alike: step 6 of 9 is at 2 / 3 exactly.
        return float(DROP ** sum(behind >= share for share in config.lr_drops))
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * min(behind, 1.0))) / 2
    return float(max(0.0, 1 - behind) ** config.power)
