"""Lightning trainer of a run: its processes, callbacks, loggers and precision."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from crispseg.config.settings import CONFIG
from crispseg.errors import CrispsegError
from crispseg.inference.device import usable_device
from crispseg.io.files import write_file
from crispseg.io.host import quiet_loggers
from crispseg.nn import ceil_div
from crispseg.training.callbacks import ClassWeightSchedule, MetricsFile, Patience, WarmedAverage
from crispseg.training.checkpoints import LAST, RECORDED, AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.feedback import ProgressBar, ProgressLines
from crispseg.training.optimization import on_cuda
from crispseg.training.pace import NEVER, Pace
from crispseg.training.result import METRICS
from crispseg.training.stage_times import StageTimes
from crispseg.training.task import steps_per_epoch

PRECISIONS: dict[str, Any] = {"bf16": "bf16-mixed", "fp32": "32-true"}


def build_trainer(config: TrainConfig, batches: int, console: Console, further: Sequence[Callback]) -> L.Trainer:
    """Build the trainer of a run; `batches` is the number per epoch and device, `further` adds callbacks."""
    per_epoch = steps_per_epoch(batches, config)
    steps = None if config.minutes else config.iterations or (config.epochs or 0) * per_epoch
    return L.Trainer(
        accelerator="cuda" if on_cuda(config) else config.device.replace("auto", "cpu"),
        devices=config.devices,
        num_nodes=config.num_nodes,
        # Without it, the first step of a session adds up gradients in another order than later steps.
        strategy="ddp_find_unused_parameters_true" if config.deterministic and config.processes > 2 else "auto",
        precision=PRECISIONS[config.precision],
        plugins=[AtomicCheckpointIO(), launcher()],
        # `Pace` ends a run after a number of steps. With max_steps, a resumed Lightning run would count an epoch twice
        # if the checkpoint completed it, and train one epoch less.
        max_epochs=-1 if steps is None else ceil_div(steps, per_epoch),
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip,
        check_val_every_n_epoch=None if config.minutes else config.val_every,
        val_check_interval=NEVER if config.minutes else None,
        deterministic="warn" if config.deterministic else None,
        use_distributed_sampler=False,  # crispseg's samplers distribute the samples themselves
        callbacks=[*further, *_callbacks(config, steps, console)],
        logger=_loggers(config, Path(config.out)),
        log_every_n_steps=max(batches // 50, 1),
        num_sanity_val_steps=4,  # for `Pace`
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _callbacks(config: TrainConfig, steps: int | None, console: Console) -> list[Callback]:
    """Return the callbacks of a run of some steps, or of the minutes in its settings."""
    folder, timer = Path(config.out), Timer()
    pace = Pace(timer, steps, 60 * config.minutes if config.minutes else None)
    callbacks: list[Callback] = [
        timer,
        StageTimes(),
        pace,
        MetricsFile(folder / METRICS, timer),
        ProgressLines(pace, console),
        BestCheckpoint(folder),
        LastCheckpoint(folder / LAST, config.checkpoint_every),
    ]
    if console.is_terminal:
        callbacks.append(ProgressBar(pace, console))
    if config.class_weights == "softened":
        callbacks.append(ClassWeightSchedule())
    if config.ema:
        callbacks.append(WarmedAverage(config.ema))
    if config.patience:
        callbacks.append(Patience(config.patience))
    return callbacks


def is_first_process() -> bool:
    """Return whether this process prints and writes, according to the variables of Lightning's launchers."""
    return getattr(rank_zero_only, "rank", 0) == 0


def write_text(path: Path, text: str) -> None:
    """Write a file of the run atomically, in the first process only."""
    if is_first_process():
        write_file(path, text)


def record(config: TrainConfig) -> None:
    """Write the settings of a run to its `config.yaml`."""
    write_text(Path(config.out) / CONFIG, RECORDED + yaml.safe_dump(config_to_dict(config), sort_keys=False))


def launcher() -> ClusterEnvironment:
    """Return the launcher of this run's processes: torchrun, srun, or Lightning on one machine."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # srun sets the step id. An sbatch script without srun is one process, even if it reserved more.
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS") != "1":
        return SLURMEnvironment(auto_requeue=False)  # requeuing would write additional checkpoints
    return LightningEnvironment()


def check_processes(config: TrainConfig) -> None:
    """Raise a CrispsegError if the number of started processes is wrong or there are too few GPUs."""
    cluster = launcher()
    alone = isinstance(cluster, LightningEnvironment)  # it starts all processes of one machine
    if config.num_nodes > 1 if alone else cluster.world_size() != config.processes:
        raise CrispsegError(
            f"devices is {config.devices} and num_nodes {config.num_nodes}, but {cluster.world_size()} processes were "
            "started; torchrun or srun must start devices × num_nodes processes, see docs/training.md"
        )
    if config.device != "auto":
        usable_device(config.device)
    available = torch.cuda.device_count()
    if config.device == "cuda" and available < config.devices:
        raise CrispsegError(f"device is cuda, but PyTorch finds {available} of {config.devices} devices; give cpu")


def _loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """Return the requested loggers; the default is TensorBoard if it is installed."""
    installed = {name for name in ("tensorboard", "wandb") if importlib.util.find_spec(name)}
    names = {"tensorboard"} & installed if config.loggers is None else {*config.loggers}
    for name in names - installed:
        raise CrispsegError(f"loggers contains {name}, which is not installed; pip install {name}")
    loggers: list[Logger] = []
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if "wandb" in names:
        loggers.append(WandbLogger(project="crispseg", name=folder.name, save_dir=folder))
    return loggers


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's tips and notes on hardware in the block; errors and crispseg's lines remain."""
    with warnings.catch_warnings(), quiet_loggers(logging.ERROR, "lightning.pytorch", "lightning.fabric"):
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        yield
