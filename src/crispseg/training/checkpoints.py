"""Checkpoints: written whole or not at all, read without trust; what an ended run keeps, and whether it may resume."""

from __future__ import annotations

import copy
import dataclasses
import math
import signal
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from crispseg.backbones.weights import check_archive
from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, Interrupted, ended_worker, one_line, system_line
from crispseg.io.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.models.info import renamed
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.pace import callback
from crispseg.training.result import METRICS, PICTURES

LAST = Path("checkpoints") / "last.ckpt"
BEST = Path("checkpoints") / "best.ckpt"
MODEL = "model"

SECONDS = 20.0
"""Age of the last checkpoint from which the end of an epoch writes another one."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes next to the old file and renames; Lightning's own writer copies over it from another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # PyTorch's, for an error of the operating system
                raise (error.__context__ or error) from None


class BestCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt` and the folder `model` at the best evaluation so far.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        path = folder.resolve() / BEST  # as Lightning writes it: it would delete a best one of another name
        super().__init__(
            path.parent,
            path.stem,
            monitor="val/miou",
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.path = path
        self.model = folder / MODEL

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score is not before and trainer.is_global_zero:
            assert isinstance(pl_module.model, SegmentationModel)
            self.save_model(pl_module.model)

    def save_model(self, model: SegmentationModel) -> None:
        """Save the model with the weights in `best.ckpt`, which may be averages, and its mIoU."""
        best = copy.deepcopy(model)
        load_checkpoint(self.path, best)
        assert self.best_model_score is not None
        best.info = dataclasses.replace(best.info, metrics={"val_miou": round(float(self.best_model_score), 2)})
        best.save_pretrained(self.model)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the score from `best.ckpt`, which is newer if the run was killed before it wrote `last.ckpt`.

        The folder may have been moved.
        """
        if state_dict["best_model_score"] is None and not self.path.is_file():
            return
        states = torch.load(self.path, "cpu", weights_only=True)["callbacks"].values()
        score = next(state["best_model_score"] for state in states if "best_model_score" in state)
        path = str(self.path)
        best = {"best_model_score": score, "best_model_path": path, "best_k_models": {path: score}, "kth_value": score}
        super().load_state_dict(state_dict | best | {"kth_best_model_path": path, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each evaluation, at the end of an epoch if it is `SECONDS` old, and at the end.

    `ModelCheckpoint` would also write while gradients are accumulated.

    Args:
        path: of the file.
        every: write it every so many steps too.

    Attributes:
        saved: step of the latest checkpoint; None if there is none.
    """

    def __init__(self, path: Path, every: int | None) -> None:
        self.path = path
        self.every = every
        self.evaluated = False
        self.saved: int | None = None
        self.written = -math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved = trainer.global_step or None  # of the checkpoint that the run resumes from

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches
        # A run resumed after the last step of an epoch, or of all, would not be evaluated there.
        if (self.evaluated or self._asked(trainer)) and not (
            accumulating or trainer.is_last_batch or trainer.should_stop
        ):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = self.evaluated or self._asked(trainer) or trainer.should_stop
        if trainer.strategy.broadcast(due or time.monotonic() - self.written > SECONDS):
            self.save(trainer)

    def _asked(self, trainer: L.Trainer) -> bool:
        return self.every is not None and trainer.global_step % self.every == 0

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint; all processes have to."""
        trainer.save_checkpoint(self.path)
        self.evaluated, self.saved, self.written = False, trainer.global_step, time.monotonic()


class Patience(EarlyStopping):
    """Stops after so many evaluations without a better mIoU; a run that is resumed may have another patience."""

    def __init__(self, patience: int) -> None:
        super().__init__("val/miou", mode="max", patience=patience, verbose=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True  # it had stopped before


def load_checkpoint(path: Path, model: SegmentationModel) -> int:
    """Load the weights in a checkpoint into a model with its heads for deep supervision.

    Returns:
        The checkpoint's step.

    Raises:
        CrispsegError: it is missing, damaged or of another model.
    """
    weights, step = read_checkpoint(path)
    try:
        model.load_state_dict(weights)
        return step
    except RuntimeError:
        line = f"checkpoint {path} is of another model; resume with the model and data of the run"
        raise CrispsegError(line) from None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """Read the model's weights in a checkpoint, and its step.

    Raises:
        CrispsegError: it is missing or damaged.
    """
    if not path.is_file():
        raise CrispsegError(f"there is no checkpoint {path}; restore it, or train again into another folder")
    try:
        check_archive(path)
        checkpoint = torch.load(path, "cpu", weights_only=True)
        state = checkpoint["state_dict"].items()
        weights = {key.removeprefix("model."): value for key, value in state if key.startswith("model.")}
        return weights, int(checkpoint["global_step"])
    except Exception as error:  # torch.load raises almost anything on a damaged file
        what = one_line(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise CrispsegError(
            f"checkpoint {path} is damaged ({what}); restore it, or train again into another folder"
        ) from None


@contextmanager
def interruptible(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """In the block, SIGINT and SIGTERM end the run in `folder` with a line that says what was kept.

    Raises:
        CrispsegError: the operating system refused something, such as space for a checkpoint, or ended a data worker;
            or one of several processes failed.
        Interrupted: such a signal came.
    """
    try:
        yield
    except SystemExit as stop:  # Lightning raises it for KeyboardInterrupt, whose subclass knows the signal
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        line = f"interrupted at step {trainer.global_step}; {_kept(trainer, folder)}"
        raise Interrupted(line, getattr(stop.__context__, "number", number)) from None
    except OSError as error:
        raise CrispsegError(f"{system_line(error)}; {_kept(trainer, folder)}") from None
    except RuntimeError as error:
        worker = ended_worker(error)
        if isinstance(worker, Interrupted):  # the signal came to the workers first
            line = f"interrupted at step {trainer.global_step}; {_kept(trainer, folder)}"
            raise Interrupted(line, worker.number) from None
        if worker is None and trainer.world_size == 1:
            raise
        what = worker or f"training failed in process {trainer.global_rank}, or another ended ({one_line(error)})"
        raise CrispsegError(f"{what}; {_kept(trainer, folder)}") from error


def _kept(trainer: L.Trainer, folder: Path) -> str:
    """What there is of a run that ends early, and how to go on."""
    last = callback(trainer, LastCheckpoint)
    if last.saved is None and not last.path.is_file():
        return "start it again"
    # Another process may have ended between the writing of a checkpoint and the word that it is written.
    kept = "the last checkpoint" if last.saved is None else f"the checkpoint of step {last.saved}"
    return f"{kept} was kept: resume the run in {folder}"


MAY_CHANGE = {
    *("out", "epochs", "minutes", "patience", "val_every", "workers", "accelerator", "precision", "loggers"),
    *("plugins", "checkpoint_every"),
}
"""Settings that a resumed run may change; its checkpoint depends on the others."""

IMAGES_A_STEP = ("batch_size", "devices", "num_nodes")
"""Settings that a resumed run may change if their product stays."""


def check_folder(config: TrainConfig, *, resume: bool) -> None:
    """Make sure that the run's folder holds nothing that training would overwrite; with `resume`, that it holds a run.

    Raises:
        CrispsegError: it does not.
    """
    folder = Path(config.out)
    if folder == Path():
        raise CrispsegError("out is the current folder; give the run a folder of its own")
    if resume:
        if not (folder / LAST).is_file() or not (folder / CONFIG).is_file():
            raise CrispsegError(f"{folder} has no {LAST} to resume from; start the run again")
    elif (folder / LAST).is_file():
        raise CrispsegError(f"{folder} already holds a run; resume it, or choose another out")
    elif (folder / MODEL).is_dir():
        raise CrispsegError(f"{folder} already holds a model; choose another out")
    elif not (folder / LAST.parent).is_dir():  # a run makes it before it writes anything
        for name in (CONFIG, METRICS, PICTURES):
            if (folder / name).exists():
                raise CrispsegError(f"{folder} holds {name}, which no run wrote there; choose another out")


def check_same_run(config: TrainConfig) -> None:
    """Make sure that the settings, none of them auto any more, are those of the run that they resume.

    Raises:
        CrispsegError: others than may change have changed, or the recorded ones are damaged.
    """
    path = Path(config.out) / CONFIG
    try:
        recorded = parse_yaml(path.read_text(encoding="utf-8"))
        asked: dict[str, Any] = config_to_dict(config)
        groups = ("model", "data", "augment")
        recorded["model"] = renamed(recorded["model"])
        for key in groups:  # settings that are newer than the run have its defaults
            recorded[key] = asked[key] | recorded[key]
        changed = {key for key, value in asked.items() if recorded.get(key, value) != value} - MAY_CHANGE
        images = [math.prod(settings[key] for key in IMAGES_A_STEP) for settings in (recorded, asked)]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise CrispsegError(f"{path} holds no settings of a run ({one_line(error)}); restore it") from None
    if images[0] == images[1]:
        changed -= {*IMAGES_A_STEP}
    if changed:
        unless = f", unless {' × '.join(IMAGES_A_STEP)} stays {images[0]}" if changed <= {*IMAGES_A_STEP} else ""
        raise CrispsegError(
            f"a resumed run cannot change {', '.join(sorted(changed))}{unless}; start another one with init_from "
            f"{config.out}"
        )
