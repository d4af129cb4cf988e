"""Optimizers, learning-rate schedules and bfloat16 support."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from crispseg.inference.device import cpu_has_bf16
from crispseg.models import SegmentationModel
from crispseg.training.config import TrainConfig
from crispseg.training.muon import Muon


def build_optimizer(model: SegmentationModel, config: TrainConfig) -> Optimizer:
    """Build the optimizer, with scaled learning rates in the backbone and optional exemptions from weight decay."""
    groups: list[dict[str, Any]] = []
    rates = {"backbone": config.lr * config.backbone_lr_factor, "decoder": config.lr}
    exempt = 0 if config.decay_norms_and_biases else 1  # largest number of dimensions; decay would close gates, of none
    for part, parameters in model.parameter_groups().items():
        kinds: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []  # with and without weight decay
        for parameter in parameters:
            kinds[parameter.ndim <= exempt].append(parameter)
        for members, weight_decay in zip(kinds, (config.weight_decay, 0.0), strict=True):
            if members:
                groups.append({"params": members, "lr": rates[part], "weight_decay": weight_decay, "name": part})
    if config.optimizer == "muon":
        classifier = getattr(model, "classifier", nn.Module())  # which networks of other libraries may lack
        return Muon(groups, lr=config.lr, others=classifier.parameters())
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    # The fused optimizer updates all weights in one pass, but Lightning cannot clip gradients with it.
    return AdamW(groups, lr=config.lr, fused=config.clip is None)


def learning_rate_factor(
    config: TrainConfig, progress: Callable[[int], float], steps_per_epoch: int = 1
) -> Callable[[int], float]:
    """Return the learning-rate factor as a function of the optimizer step: linear warm-up times a decay.

    `progress` returns the completed fraction of the training before a step, such as `step / total`.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(config.warmup, 1))
        behind = progress(step - step % steps_per_epoch if config.schedule == "poly_epoch" else step)
        match config.schedule:
            case "constant":
                return warm
            case "step":  # both sides round alike, so step 6 of 9 equals 2 / 3 exactly
                return float(warm * 0.1 ** sum(behind >= share for share in config.lr_drops))
            case "cosine":
                return warm * (1 + math.cos(math.pi * min(behind, 1.0))) / 2
        return float(warm * max(0.0, 1 - behind) ** config.power)

    return factor


def on_cuda(config: TrainConfig) -> bool:
    """Return whether the run uses a CUDA device."""
    return config.device in ("auto", "cuda") and torch.cuda.is_available()


def has_bf16(config: TrainConfig, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the run's device has bfloat16 instructions."""
    if on_cuda(config):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16(cpuinfo)
