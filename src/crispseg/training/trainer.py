"""The Lightning trainer of a run: its processes, callbacks, loggers and precision."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from crispseg.errors import CrispsegError, one_line
from crispseg.training.callbacks import ClassWeightSchedule, LastEvaluation, MetricsFile, WarmedAverage
from crispseg.training.checkpoints import LAST, AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, Patience
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import Left, ProgressBars, ProgressLines, ValidationPictures
from crispseg.training.optimization import on_cuda
from crispseg.training.pace import NEVER, Budget, Pace
from crispseg.training.result import METRICS
from crispseg.training.task import SyncedNorms, steps_per_epoch
from crispseg.training.training_data import TrainingData


def build_trainer(config: TrainConfig, data: TrainingData, batches: int, console: Console) -> L.Trainer:
    """Build the trainer of a run, whose epochs have so many batches a device.

    Raises:
        CrispsegError: a logger is not installed.
    """
    folder = Path(config.out)
    per_epoch = steps_per_epoch(batches, config)
    steps = None if config.minutes else config.iterations or (config.epochs or 0) * per_epoch
    timer = Timer()
    val_pixels = sum(height * width for height, width in data.val_report.sizes)
    pace = Pace(val_pixels / config.processes, steps, config.val_every * per_epoch)
    callbacks: list[Callback] = [timer, pace]
    left: Left = pace.left
    if config.minutes:
        budget = Budget(60 * config.minutes, timer.time_elapsed, pace, console)
        left = budget.left
        callbacks.append(budget)
    else:
        callbacks.append(LastEvaluation())
    callbacks.append(MetricsFile(folder / METRICS, timer))
    callbacks += [ValidationPictures(folder, data.val), ProgressLines(config, left, pace, console)]
    if console.is_terminal:
        callbacks.append(ProgressBars(left))
    callbacks += [BestCheckpoint(folder), LastCheckpoint(folder / LAST, config.checkpoint_every)]
    if config.class_weights == "softened":
        callbacks.append(ClassWeightSchedule())
    if config.ema:
        callbacks.append(WarmedAverage(config.ema))
    if config.patience:
        callbacks.append(Patience(config.patience))
    plugins: list[Any] = [AtomicCheckpointIO(), launcher()]
    if on_cuda(config) and config.processes > 1:
        plugins.append(SyncedNorms())
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        # Otherwise the first step of a session adds gradients up in another order than the others.
        strategy="ddp_find_unused_parameters_true" if config.deterministic and config.processes > 2 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        plugins=plugins,
        max_epochs=-1 if steps is None else -(-steps // per_epoch),
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


def is_first_process() -> bool:
    """Whether this is the process that prints and writes, by the variables that Lightning's launchers set."""
    return getattr(rank_zero_only, "rank", 0) == 0


def launcher() -> ClusterEnvironment:
    """What started the processes of this run: torchrun, srun, or Lightning on one machine.

    Raises:
        CrispsegError: srun was given options that Lightning does not support.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # srun sets the number of the step; a script of sbatch without it is one process, whatever it has reserved.
    if "SLURM_STEP_ID" not in os.environ or os.environ.get("SLURM_NTASKS") == "1":
        return LightningEnvironment()
    try:
        return SLURMEnvironment(auto_requeue=False)  # which would write checkpoints of its own
    except RuntimeError as error:
        raise CrispsegError(f"srun: {one_line(error)}") from None


def check_processes(config: TrainConfig) -> None:
    """Make sure that as many processes were started as the run has, and that there are the devices for them.

    Raises:
        CrispsegError: more or fewer were, or there are fewer devices.
    """
    cluster = launcher()
    if isinstance(cluster, LightningEnvironment) and config.num_nodes > 1:
        raise CrispsegError(
            f"num_nodes is {config.num_nodes}, but this process was started alone; start it on each machine by "
            "torchrun or srun, see docs/scaling.md"
        )
    if not isinstance(cluster, LightningEnvironment) and cluster.world_size() != config.processes:
        raise CrispsegError(
            f"{cluster.world_size()} processes were started, but devices is {config.devices} and num_nodes "
            f"{config.num_nodes}; their product should be the number of processes"
        )
    if config.accelerator == "cuda" and (found := torch.cuda.device_count()) < config.devices:
        raise CrispsegError(
            f"accelerator is cuda and devices {config.devices}, but PyTorch finds {found} CUDA devices; give fewer, or "
            "cpu as accelerator"
        )


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
