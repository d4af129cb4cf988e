"""Optimizers and learning-rate schedules."""

from __future__ import annotations

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
    return AdamW(groups, lr=config.lr)


def learning_rate_factor(config: TrainConfig, total: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Factor of the learning rate at each optimizer step: linear warm-up times a decay.

    `poly` decays at every step, (1 - step / total)^power; `poly_epoch` keeps the value of the epoch's first step;
    `step` is multiplied by 0.1 where a share of the steps, one of `lr_drops`, lies behind.

    Args:
        total: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of one epoch.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
        if config.schedule == "constant":
            return warm
        if config.schedule == "step":
            # Both sides are quotients rounded alike: step 6 of 9 is at 2 / 3 exactly.
            return float(warm * DROP ** sum(step / total >= share for share in config.lr_drops))
        at = step if config.schedule == "poly" else step - step % steps_per_epoch
        return float(warm * max(0.0, 1 - at / total) ** config.power)

    return factor
