"""Checkpoints: written whole or not at all, read without trust, and what a run does with them."""

from __future__ import annotations

import dataclasses
import math
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from crispseg.backbones.weights import check_archive
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.training.processes import agreed

LAST = Path("checkpoints") / "last.ckpt"
BEST = Path("checkpoints") / "best.ckpt"
MODEL = "model"

SECONDS = 20.0
"""Of training that an interruption may cost, where it comes without a signal."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the old file and renames; Lightning's own writer copies over it from another file system.

    Of joined processes the first reads, and tells the others.

    Attributes:
        written: the step of each checkpoint that this process has written, by its path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Path, int] = {}

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        return agreed(lambda: super(AtomicCheckpoints, self).load_checkpoint(path, *arguments, **options))

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # what PyTorch makes of an error of the operating system
                raise (error.__context__ or error) from None
        self.written[Path(path)] = checkpoint["global_step"]


class EpochCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt` and the folder `model` at the best evaluation so far.

    It finds `best.ckpt` again where the run's folder was moved. Checkpoints hold its state under this class's name.

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
            model = pl_module.model
            assert isinstance(model, SegmentationModel)
            now = {key: value.clone() for key, value in model.state_dict().items()}  # those of an average are others
            self.save_model(model)
            model.load_state_dict(now)

    def save_model(self, model: SegmentationModel) -> float:
        """Give a model the weights of the best evaluation, save it, and return the evaluation's mIoU."""
        load_checkpoint(self.path, model)
        assert self.best_model_score is not None
        miou = float(self.best_model_score)
        model.info = dataclasses.replace(model.info, metrics={"val_miou": round(miou, 2)})
        model.save_pretrained(self.model)
        return miou

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = agreed(self._written)
        if state is None:
            return  # nothing was evaluated so far
        best = {"best_model_path": str(self.path), "kth_best_model_path": str(self.path), "dirpath": self.dirpath}
        super().load_state_dict({**state, **best, "best_k_models": {str(self.path): state["best_model_score"]}})

    def _written(self) -> dict[str, Any] | None:
        """Its state in `best.ckpt`, which a killed run may have written without coming to write `last.ckpt`."""
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, "cpu", weights_only=True)["callbacks"][self.state_key]
        return state


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each evaluation and at the end of the run, at the end of an epoch if the last one is
    `SECONDS` old, and, if asked, every so many steps.

    `ModelCheckpoint` would also write where gradients are being accumulated.

    Attributes:
        saved: the step of the latest checkpoint, which may lie on another machine; None if there is none.
    """

    def __init__(self, path: Path, every: int | None) -> None:
        self.path = path
        self.every = every
        self.due = False
        self.saved: int | None = None
        self.written = -math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step:
            self.saved = trainer.global_step  # the run goes on from there

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # After its last step a run would seem to be over when it is resumed, and never be evaluated.
        over = trainer.is_last_batch or trainer.should_stop  # set before, by Budget or LastEvaluation
        asked = self.every is not None and trainer.global_step % self.every == 0
        if stepped and (self.due or asked) and not over:
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.due = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        late = time.monotonic() - self.written > SECONDS  # of few images, an epoch takes less than writing all this
        asked = self.every is not None and trainer.global_step % self.every == 0
        if trainer.strategy.broadcast(self.due or late or asked or trainer.should_stop):  # all processes write together
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint."""
        trainer.save_checkpoint(self.path)
        self.due, self.saved, self.written = False, trainer.global_step, time.monotonic()


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
    """Give a model, with its heads for deep supervision, the weights in a checkpoint.

    Returns:
        The checkpoint's step.

    Raises:
        CrispsegError: it is missing, damaged or of another model.
    """
    weights, step = read_checkpoint(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise CrispsegError(
            f"checkpoint {path} is of another model; resume with the model and data of the run"
        ) from None
    return step


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """The model's weights in a checkpoint, and its step.

    Raises:
        CrispsegError: it is missing or damaged.
    """
    if not path.is_file():
        raise CrispsegError(f"there is no checkpoint {path}; restore it, or train anew into another folder")
    try:
        check_archive(path)
        checkpoint = torch.load(path, "cpu", weights_only=True)
        state = checkpoint["state_dict"]
        weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
        return weights, int(checkpoint["global_step"])
    except Exception as error:  # torch.load raises almost anything on a damaged file
        what = one_line(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise CrispsegError(
            f"checkpoint {path} is damaged ({what}); restore it, or train anew into another folder"
        ) from None
