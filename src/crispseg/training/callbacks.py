"""What happens beside the training: the table of metrics and the lines or bars a person watches."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn

from crispseg.errors import CrispsegError
from crispseg.files import atomic_path
from crispseg.labels import LabelSet
from crispseg.training.task import SegmentationTask


class MetricsFile(Callback):
    """Writes `metrics.csv`, a row for each evaluation; a resumed run continues it.

    Columns: epoch (1 is the first), step, seconds since the start of the (latest) training, lr, train_loss (mean of the
    epoch), miou, pixel_accuracy and one IoU a class, in percent. The file is whole at any time.
    """

    def __init__(self, path: Path, labels: LabelSet) -> None:
        self.path = path
        self.labels = labels
        self.rows: list[dict[str, str]] = []
        self.evaluated = 0  # the latest epoch with an evaluation
        self.loss, self.batches = 0.0, 0  # sum over this epoch; in checkpoints, since a resumed epoch has one mean

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss, self.batches = state_dict["loss"], state_dict["batches"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluated = trainer.current_epoch + 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.monotonic()
        if self.path.is_file():
            # What was evaluated after the checkpoint that training continues from is evaluated again.
            self.rows = [row for row in read_rows(self.path) if int(row["step"]) <= trainer.global_step]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss += float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        self.batches += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = self.loss / max(self.batches, 1)
        self.loss, self.batches = 0.0, 0
        if trainer.current_epoch + 1 != self.evaluated or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SegmentationTask)
        assert pl_module.scores is not None
        scores = pl_module.scores
        row = {
            "epoch": str(trainer.current_epoch + 1),
            "step": str(trainer.global_step),
            "seconds": f"{time.monotonic() - self.started:.1f}",
            "lr": f"{max(group['lr'] for group in trainer.optimizers[0].param_groups):.3g}",
            "train_loss": _number(loss),
            "miou": _number(scores.miou),
            "pixel_accuracy": _number(scores.pixel_accuracy),
            **{f"iou/{name}": _number(value) for name, value in zip(self.labels.names, scores.iou, strict=True)},
        }
        self.rows.append(row)
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a `metrics.csv`.

    Raises:
        CrispsegError: it is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            int(row["step"])
            if None in row or None in row.values():
                raise ValueError
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        reason = type(error).__name__
        raise CrispsegError(f"{path} is damaged ({reason}); restore it, or remove it to begin a new one") from None
    return rows


def _number(value: Any) -> str:
    return "" if value is None or math.isnan(float(value)) else f"{float(value):.4f}"


class LastEvaluation(Callback):
    """Evaluates after the last step too, wherever in an epoch it falls."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step >= trainer.estimated_stepping_batches:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True


class Clock:
    """Estimates how long a training will still take."""

    def start(self, trainer: L.Trainer) -> None:
        self.started = time.monotonic()
        self.first_step = trainer.global_step

    def left(self, trainer: L.Trainer) -> str:
        """Minutes and seconds to the end of the run, such as "3:05"."""
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        done = max(trainer.global_step - self.first_step, 1)
        seconds = round((time.monotonic() - self.started) / done * steps)
        return f"{seconds // 60}:{seconds % 60:02}"


class Bars(RichProgressBar):
    """Progress bars with loss, mIoU and the time left of the whole run, for a terminal."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=2, console_kwargs={"stderr": True})
        self.clock = Clock()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.clock.start(trainer)

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        return [TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()]

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        names = {"train/loss_step": ("loss", ".3f"), "val/miou": ("mIoU", ".1f")}
        metrics = {names[key][0]: f"{value:{names[key][1]}}" for key, value in shown.items() if key in names}
        return {**metrics, "left": self.clock.left(trainer)}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class Lines(Callback):
    """A line for every evaluation and every half minute, for a log file."""

    every = 30.0

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock = Clock()
        self.clock.start(trainer)
        self.latest = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() - self.latest > self.every:
            self._say(trainer, "")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            assert isinstance(pl_module, SegmentationTask)
            assert pl_module.scores is not None
            self._say(trainer, f"  mIoU {pl_module.scores.miou:.1f}")

    def _say(self, trainer: L.Trainer, more: str) -> None:
        self.latest = time.monotonic()
        if not trainer.is_global_zero:
            return
        step = f"{trainer.global_step}/{trainer.estimated_stepping_batches}"
        loss = trainer.callback_metrics.get("train/loss_step", np.nan)
        self.console.print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {step}  "
            f"loss {float(loss):.3f}{more}  {self.clock.left(trainer)} left",
            highlight=False,
        )
