"""Checkpoints: written whole or not at all, read without trust, and what a run does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.files import atomic_path
from crispseg.models import SegmentationModel

LAST = Path("checkpoints") / "last.ckpt"
BEST = Path("checkpoints") / "best.ckpt"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the old file and renames; Lightning's own writer copies over it from another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)


class EpochCheckpoint(ModelCheckpoint):
    """`last.ckpt` at the end of each epoch or, with a `monitor`, `best.ckpt` at the best evaluation so far.

    It finds its file again where the run's folder was moved. The best score is that of `best.ckpt`, which a killed run
    may have written without coming to write `last.ckpt`.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path.parent, path.stem, enable_version_counter=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.dirpath is not None
        own = Path(self.dirpath) / f"{self.filename}.ckpt"
        if self.monitor and own.is_file():
            state_dict = torch.load(own, "cpu", weights_only=True)["callbacks"][self.state_key]
        moved = {**state_dict, "dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[key] = str(own) if moved.get(key) else ""
        moved["best_k_models"] = {str(own): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict(moved)


class StepCheckpoint(Checkpoint):
    """Writes `last.ckpt` every so many steps, besides those at the end of an epoch and of the run."""

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # After its last step a run would seem to be over when it is resumed, and never be evaluated.
        over = trainer.is_last_batch or trainer.global_step >= trainer.estimated_stepping_batches
        if stepped and trainer.global_step % self.every == 0 and not over:
            trainer.save_checkpoint(self.path)


class Patience(EarlyStopping):
    """Stops after so many evaluations without a better mIoU; a run that is resumed may have another patience."""

    def __init__(self, patience: int) -> None:
        super().__init__("val/miou", mode="max", patience=patience, verbose=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True  # it had stopped before


def check_checkpoints(folder: Path, model: SegmentationModel) -> tuple[int, int]:
    """Find out now, not when they are needed, that checkpoints of a run are damaged or of another model.

    Returns:
        The steps of the last checkpoint and of the best one; 0 where there is none.

    Raises:
        CrispsegError: one is.
    """
    own = {key: value.shape for key, value in model.state_dict().items()}
    steps = {LAST: 0, BEST: 0}
    for name in steps:
        if (folder / name).is_file():
            weights, steps[name] = read_checkpoint(folder / name)
            if own != {key: value.shape for key, value in weights.items()}:
                raise CrispsegError(
                    f"checkpoint {folder / name} is of another model; resume with the model and data of the run"
                )
    return steps[LAST], steps[BEST]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """The model's weights in a checkpoint, and its step.

    Raises:
        CrispsegError: it is missing or damaged.
    """
    if not path.is_file():
        raise CrispsegError(f"there is no checkpoint {path}; restore it, or train anew into another folder")
    try:
        checkpoint = torch.load(path, "cpu", weights_only=True)
        state = checkpoint["state_dict"]
        weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
        return weights, int(checkpoint["global_step"])
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise CrispsegError(
            f"checkpoint {path} is damaged ({type(error).__name__}); restore it, or train anew into another folder"
        ) from None
