"""Checkpoints: atomic writing, safe reading, interrupted runs, and checks before a run resumes."""

from __future__ import annotations

import copy
import dataclasses
import math
import signal
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from crispseg.backbones.weights import check_archive
from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import read_yaml
from crispseg.errors import CrispsegError, Interrupted, command_line, ended_worker, few, one_line, system_line
from crispseg.evaluation.recorded import TRAINED
from crispseg.io.files import atomic_path, regular_file, written_lines
from crispseg.models import SegmentationModel
from crispseg.models.info import renamed
from crispseg.models.saving import FOLDS, MODEL
from crispseg.training.callbacks import MetricsFile
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.pace import Pace, callback
from crispseg.training.report import REPORT
from crispseg.training.result import METRICS, PICTURE
from crispseg.training.task import SegmentationTask

LAST = Path("checkpoints") / "last.ckpt"
BEST = Path("checkpoints") / "best.ckpt"
RECORDED = "# The settings of this run, as crispseg recorded them.\n"
"""First line of a run's `config.yaml`; it distinguishes the file from one that a user wrote."""

DIGEST = "data.digest"
"""File of the digest of a run's images and masks."""

SECONDS = 20.0  # minimum age of the last checkpoint before the end of an epoch writes another one


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write next to the old file, then rename; Lightning's writer copies over it from another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # PyTorch raises it for errors of the operating system
                raise (error.__context__ or error) from None


class BestCheckpoint(Callback):
    """Write `best.ckpt` and the folder `model` after an evaluation that is at least as good as all before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        *earlier, miou = callback(trainer, MetricsFile).mious
        if miou < max(earlier, default=0):
            return
        trainer.save_checkpoint(self.folder / BEST)
        if trainer.is_global_zero:
            assert isinstance(pl_module, SegmentationTask)
            best = copy.deepcopy(pl_module.model)
            load_checkpoint(self.folder / BEST, best)  # its weights may be averages
            metrics: dict[str, Any] = {"val_miou": round(miou, 2)}
            if sampled := callback(trainer, Pace).sampled:
                metrics["val_images"] = sampled
            best.info = dataclasses.replace(best.info, metrics=metrics)
            best.save_pretrained(self.folder / MODEL)


class LastCheckpoint(Checkpoint):
    """Write `last.ckpt` after each evaluation, at the end of an epoch if it is `SECONDS` old, and at the end.

    With `every`, also write it every `every` steps. `ModelCheckpoint` would also write while gradients accumulate.
    """

    def __init__(self, path: Path, every: int | None) -> None:
        self.path = path
        self.every = every
        self.evaluated = False
        self.saved: int | None = None  # step of the latest checkpoint of this session
        self.written = -math.inf

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches
        # A run that resumes after the last step of an epoch or of the run would skip the evaluation there.
        if self._due(trainer) and not (accumulating or trainer.is_last_batch or trainer.should_stop):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = self._due(trainer) or trainer.should_stop or time.monotonic() - self.written > SECONDS
        if trainer.strategy.broadcast(due):
            self.save(trainer)

    def _due(self, trainer: L.Trainer) -> bool:
        return self.evaluated or (self.every is not None and trainer.global_step % self.every == 0)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint; all processes must call this."""
        trainer.save_checkpoint(self.path)
        self.evaluated, self.saved, self.written = False, trainer.global_step, time.monotonic()


def load_checkpoint(path: Path, model: SegmentationModel) -> int:
    """Load the weights of a checkpoint into a model and return its step; another model raises a CrispsegError."""
    weights, step = read_checkpoint(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        line = f"checkpoint {path} belongs to another model; resume with the model and data of the run"
        raise CrispsegError(line) from None
    return step


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """Read the model's weights and the step of a checkpoint; a missing or damaged file raises a CrispsegError."""
    path = regular_file(path)
    try:
        check_archive(path)
        checkpoint = torch.load(path, "cpu", weights_only=True)
        state = checkpoint["state_dict"].items()
        weights = {key.removeprefix("model."): value for key, value in state if key.startswith("model.")}
        return weights, int(checkpoint["global_step"])
    except Exception as error:  # torch.load raises almost any error for a damaged file
        reason = one_line(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        remedy = "restore it, or remove it and resume the run from the remaining checkpoint"
        raise CrispsegError(f"checkpoint {path} is missing or damaged ({reason}); {remedy}") from None


@contextmanager
def interruptible(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """Turn SIGINT and SIGTERM in the block into `Interrupted`, with a message that names the kept checkpoint.

    An error of the system or of another process becomes a `CrispsegError` with the same message.
    """
    try:
        yield
    except (SystemExit, OSError, RuntimeError) as error:
        saved, worker = callback(trainer, LastCheckpoint).saved, ended_worker(error)
        remedy = f"resume the run: {command_line(['train'], {'resume': str(folder)})}"
        if saved is not None:
            remedy = f"the checkpoint of step {saved} was kept; {remedy}"
        # Lightning raises SystemExit for an interrupt. The data workers may also have received the signal first.
        if isinstance(error, SystemExit) or isinstance(worker, Interrupted):
            usual = signal.SIGTERM if isinstance(error, SIGTERMException) else signal.SIGINT
            number = getattr(worker or error.__context__, "number", usual)
            raise Interrupted(f"interrupted at step {trainer.global_step}; {remedy}", number) from None
        if isinstance(error, OSError):
            raise CrispsegError(f"{system_line(error)}; {remedy}") from None
        if worker is None and trainer.world_size == 1:
            raise
        reason = worker or f"training failed in process {trainer.global_rank}, or another ended ({one_line(error)})"
        raise CrispsegError(f"{reason}; {remedy}") from error


MAY_CHANGE = {
    *("out", "epochs", "minutes", "patience", "val_every", "workers", "device", "precision", "loggers"),
    *("plugins", "checkpoint_every"),
}
"""Settings that a resumed run may change; its checkpoint depends on the others."""


PLACES = ("root", "images", "masks", "instances", "train_list", "val_list", "test_list")
"""Settings of the data that a resumed run may change if the images and masks are the same."""


def check_folder(out: str | Path, *, resume: bool) -> Path | None:
    """Return the checkpoint to resume from, the last one or else the best; None if the run starts from the beginning.

    A run that ended before its first checkpoint can be resumed or started again. A file that training would overwrite,
    or no run to resume, raises a `CrispsegError`.
    """
    folder = Path(out)
    results: list[str | Path] = [LAST, BEST, MODEL, FOLDS]
    if not is_begun(folder):
        results += [CONFIG, METRICS, PICTURE, REPORT, TRAINED, DIGEST]  # files of the user
    result = first_existing(folder, results)
    if not resume:
        if result:
            raise CrispsegError(f"{folder} already contains {result}; resume the run, or choose another out")
        return None
    checkpoint = first_existing(folder, (LAST, BEST))
    if not (folder / CONFIG).is_file() or (result and checkpoint is None):
        line = f"{folder} has no {LAST} to resume from"
        raise CrispsegError(f"{line}; choose another out, and add init_from if the folder has a model")
    return folder / checkpoint if checkpoint else None


def is_begun(folder: Path) -> bool:
    """Return whether a run has begun in a folder, so that its files are not the user's."""
    settings = folder / CONFIG
    recorded = settings.is_file() and settings.read_bytes().startswith(RECORDED.encode())
    return recorded and (folder / LAST.parent).is_dir()


def first_existing(folder: Path, names: Iterable[str | Path]) -> str | Path | None:
    """Return the first of these names that the folder contains."""
    return next((name for name in names if (folder / name).exists()), None)


def check_same_run(config: TrainConfig, digest: str = "") -> None:
    """Raise a CrispsegError if the settings (none of them auto) or the data differ from those of the resumed run.

    The data may have moved if their `digest` is the recorded one; see `TrainingData`.
    """
    folder, asked = Path(config.out), config_to_dict(config)
    recorded = asked | read_yaml(folder / CONFIG)  # settings that were added after the run get their defaults
    recorded["model"] = renamed(recorded["model"])
    for group in ("model", "data", "augment"):
        recorded[group] = asked[group] | recorded[group]
    file = folder / DIGEST
    if file.is_file() and file.read_text(encoding="utf-8") == digest:
        recorded["data"] |= {key: value for key, value in asked["data"].items() if key in PLACES}
    for settings in (recorded, asked):
        images = math.prod(settings.pop(key) for key in ("batch_size", "devices", "num_nodes"))
        settings["batch_size × devices × num_nodes"] = images  # the number of images per step must stay
    changed = {key for key, value in asked.items() if recorded[key] != value} - MAY_CHANGE
    if changed:
        line = f"a resumed run cannot change {', '.join(sorted(changed))}"
        raise CrispsegError(f"{line}; start another one with init_from {folder}")
    _check_same_images(config, folder / TRAINED)


def _check_same_images(config: TrainConfig, file: Path) -> None:
    names = config.data.names_to_record(config.data.pairs("train"))
    if file.is_file() and (different := sorted({*written_lines(file)} ^ {*names})):
        line = f"{file} and the current training images differ by {few(different)}"
        raise CrispsegError(f"{line}; restore the data, or start another run with init_from {config.out}")
