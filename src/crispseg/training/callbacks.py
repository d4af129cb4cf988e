"""What happens beside the training: the table of metrics and the lines or bars a person watches."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar, Timer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn

from crispseg.files import atomic_path
from crispseg.training.task import SegmentationTask


class MetricsFile(Callback):
    """Writes `metrics.csv`, a row for each evaluation. The rows are in checkpoints, so a resumed run continues it.

    Columns: epoch (1 is the first), step, seconds of training, lr, train_loss (mean of the epoch), miou,
    pixel_accuracy and one IoU a class, in percent. The file is whole at any time.
    """

    def __init__(self, path: Path, timer: Timer) -> None:
        self.path = path
        self.timer = timer
        self.rows: list[dict[str, str]] = []
        self.loss, self.batches = 0.0, 0  # sum over this epoch; in checkpoints, since a resumed epoch has one mean

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "loss": self.loss, "batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss, self.batches = state_dict["loss"], state_dict["batches"]
        self.rows = list(state_dict.get("rows", ()))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step and not self.rows and self.path.is_file():  # from before checkpoints had the rows
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss += float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        self.batches += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.loss, self.batches = 0.0, 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask) and pl_module.scores is not None
        scores = pl_module.scores
        percent = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
        percent |= {f"iou/{name}": iou for name, iou in zip(pl_module.model.info.class_names, scores.iou, strict=True)}
        row = {
            "epoch": str(trainer.current_epoch + 1),
            "step": str(trainer.global_step),
            "seconds": f"{self.timer.time_elapsed():.1f}",
            "lr": f"{pl_module.lr:.3g}",
            "train_loss": f"{self.loss / self.batches:.4f}",
            **{name: "" if math.isnan(value) else f"{value:.4f}" for name, value in percent.items()},
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
                writer.writerows(self.rows)


class LastEvaluation(Callback):
    """Evaluates after the last step too, wherever in an epoch it falls."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step >= trainer.estimated_stepping_batches:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True


def time_left(trainer: L.Trainer, timer: Timer) -> str:
    """Estimated minutes and seconds to the end of the run, such as "3:05"."""
    steps = int(trainer.estimated_stepping_batches) - trainer.global_step
    seconds = round(timer.time_elapsed() / max(trainer.global_step, 1) * steps)
    return f"{seconds // 60}:{seconds % 60:02}"


class Bars(RichProgressBar):
    """Lightning's progress bars for a terminal, with loss, mIoU and the time left of the whole run."""

    def __init__(self, timer: Timer) -> None:
        super().__init__(refresh_rate=2, console_kwargs={"stderr": True})
        self.timer = timer

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        return [TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()]

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        names = {"train/loss_step": "loss", "val/miou": "mIoU"}
        shown = {names[key]: value for key, value in trainer.progress_bar_metrics.items() if key in names}
        return {**shown, "left": time_left(trainer, self.timer)}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class Lines(Callback):
    """A line for every evaluation and every half minute, for a log file."""

    every = 30.0

    def __init__(self, timer: Timer, console: Console) -> None:
        self.timer = timer
        self.console = console
        self.latest = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() - self.latest > self.every:
            self._say(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._say(trainer, f"  mIoU {trainer.callback_metrics['val/miou']:.1f}")

    def _say(self, trainer: L.Trainer, more: str = "") -> None:
        self.latest = time.monotonic()
        self.console.print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  "
            f"step {trainer.global_step}/{trainer.estimated_stepping_batches}  "
            f"loss {trainer.callback_metrics['train/loss_step']:.3f}{more}  {time_left(trainer, self.timer)} left",
            highlight=False,
        )
