"""The Lightning trainer of a run: its callbacks, loggers and precision."""

from __future__ import annotations

import functools
import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console

from crispseg.data import SplitReport
from crispseg.data.dataset import SegmentationDataset
from crispseg.errors import CrispsegError
from crispseg.training.averaging import WarmedAverage
from crispseg.training.budget import NEVER, Budget
from crispseg.training.callbacks import Bars, LastEvaluation, Lines, MetricsFile
from crispseg.training.checkpoints import (
    LAST,
    AtomicCheckpoints,
    EpochCheckpoint,
    LastCheckpoint,
    Patience,
)
from crispseg.training.config import TrainConfig
from crispseg.training.pace import Course, Pace
from crispseg.training.pictures import Pictures, telling_images
from crispseg.training.processes import environment
from crispseg.training.result import METRICS
from crispseg.training.task import SyncedNorms, steps_per_epoch
from crispseg.training.weighing import MilderWeights


def build_trainer(
    config: TrainConfig,
    batches: int,
    train: SplitReport,
    val: SplitReport,
    val_set: SegmentationDataset,
    console: Console,
) -> L.Trainer:
    """The trainer of a run.

    Args:
        config: the run.
        batches: of a device, in an epoch.
        train: what the training split holds.
        val: what the val split holds.
        val_set: the val split.
        console: where to print.

    Raises:
        CrispsegError: there are fewer devices than asked for; a logger is not installed.
    """
    if config.accelerator == "cuda" and (found := torch.cuda.device_count()) < config.devices:
        raise CrispsegError(
            f"accelerator is cuda with {config.devices} device(s), but PyTorch finds {found}; "
            f"use {f'--devices {found}' if found else '--accelerator cpu'}"
        )
    folder = Path(config.out)
    steps = steps_per_epoch(batches, config)
    plugins: list[Any] = [AtomicCheckpoints(), environment()]
    if on_cuda(config) and config.processes > 1:
        plugins.append(SyncedNorms())
    timer, pace = Timer(), Pace(sum(height * width for height, width in val.sizes) / config.processes)
    callbacks: list[Callback] = [timer, pace]
    left: Callable[[], float | None]
    if config.minutes:
        budget = Budget(60 * config.minutes, timer.time_elapsed, pace, console)
        left = budget.left
        callbacks.append(budget)
    else:
        left = functools.partial(pace.left, Course.of(config, steps))
        callbacks.append(LastEvaluation())
    callbacks += [MetricsFile(folder / METRICS, timer), Pictures(folder, val_set, telling_images(val.present))]
    callbacks.append(Lines(config, left, pace, train.shares, console))
    if console.is_terminal:
        callbacks.append(Bars(left))
    callbacks += [EpochCheckpoint(folder), LastCheckpoint(folder / LAST, config.checkpoint_every)]
    if config.class_weights == "softened":
        callbacks.append(MilderWeights())
    if config.ema:
        callbacks.append(WarmedAverage(config.ema))
    if config.patience:
        callbacks.append(Patience(config.patience))
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        # Else the first step of a session adds gradients up in another order than the others.
        strategy="ddp_find_unused_parameters_true" if config.deterministic and config.processes > 2 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        plugins=plugins,
        profiler=pace.wait,
        max_epochs=_epochs(config, steps),
        max_steps=config.iterations or -1,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip,
        check_val_every_n_epoch=None if config.minutes else config.val_every,
        val_check_interval=NEVER if config.minutes else None,
        deterministic="warn" if config.deterministic else None,
        use_distributed_sampler=False,  # ours deal out the samples themselves
        callbacks=callbacks,
        logger=_loggers(config, folder),
        log_every_n_steps=1 if batches < 50 else 50,
        num_sanity_val_steps=4,  # for `Pace`
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
    )


def _epochs(config: TrainConfig, steps: int) -> int:
    """At most so many epochs, of so many steps each; -1 for any number."""
    if config.minutes:
        return -1
    return -(-config.iterations // steps) if config.iterations else config.epochs or -1


def on_cuda(config: TrainConfig) -> bool:
    """Whether the run will be on a CUDA device."""
    return config.accelerator != "cpu" and torch.cuda.is_available()


def _loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """Those asked for; by default TensorBoard where it is installed."""
    default = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    loggers: list[Logger] = []
    for name in default if config.loggers is None else config.loggers:
        if importlib.util.find_spec(name) is None:
            raise CrispsegError(f"loggers names {name}, which is not installed: pip install 'crispseg[{name}]'")
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        else:
            loggers.append(WandbLogger(project="crispseg", name=folder.name, save_dir=folder))
    return loggers


def quiet() -> None:
    """Leave out Lightning's tips and its notes on what it uses; errors and our own lines remain."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
