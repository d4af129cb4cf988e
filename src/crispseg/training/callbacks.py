"""What happens beside the training: the table of metrics and the lines or bars a person watches."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar, Timer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from torch import Tensor

from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_path
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import class_lines, classes_in_short, remarks, waiting_in_words
from crispseg.training.pace import Pace, in_words
from crispseg.training.task import SegmentationTask

SHARED_COLUMNS = ("epoch", "step", "seconds", "lr", "train_loss", "miou", "pixel_accuracy")
"""Of `metrics.csv`, beside the IoU of each class."""


class MetricsFile(Callback):
    """Writes `metrics.csv`, a row for each evaluation. The rows are in checkpoints, so a resumed run continues it.

    Columns: epoch (1 is the first), step, seconds of training, lr, train_loss (mean of the epoch, or since the last
    evaluation where the length of the run is a time), miou, pixel_accuracy and one IoU a class, in percent. The file is
    whole at any time.

    Attributes:
        rows: the rows so far.
        confusion: `(C, C)` pixels at the best evaluation; rows are the truth. None where it is not known.
    """

    def __init__(self, path: Path, timer: Timer) -> None:
        self.path = path
        self.timer = timer
        self.rows: list[dict[str, str]] = []
        self.confusion: Tensor | None = None
        self.loss, self.batches = 0.0, 0  # the sum so far; in checkpoints, since a resumed epoch has one mean

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "loss": self.loss, "batches": self.batches, "confusion": self.confusion}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss, self.batches = state_dict["loss"], state_dict["batches"]
        self.rows = list(state_dict.get("rows", ()))
        self.confusion = state_dict.get("confusion")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step and not self.rows and self.path.is_file():  # from before checkpoints had the rows
            assert isinstance(pl_module, SegmentationTask)
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                table = csv.DictReader(file)
                known = {*SHARED_COLUMNS, *(f"iou/{name}" for name in pl_module.model.info.class_names)}
                if not {"step", "miou"} <= {*(table.fieldnames or ())} <= known:
                    raise CrispsegError(f"{self.path} is damaged: its columns are others; restore or remove it")
                try:
                    for row in table:
                        _ = [float(value or "nan") for value in row.values()]
                        if int(row["step"]) <= trainer.global_step:
                            self.rows.append(row)
                except (csv.Error, TypeError, ValueError) as error:
                    what = f"a row is none of scores ({one_line(error)})"
                    raise CrispsegError(f"{self.path} is damaged: {what}; restore or remove it") from None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss += float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        self.batches += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.check_val_every_n_epoch is not None:
            self.loss, self.batches = 0.0, 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
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
        if all(scores.miou > float(earlier["miou"] or "-inf") for earlier in self.rows):
            self.confusion = torch.from_numpy(scores.confusion)
        self.rows.append(row)
        if trainer.check_val_every_n_epoch is None:
            self.loss, self.batches = 0.0, 0
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


def epoch_of(trainer: L.Trainer) -> str:
    """Such as "epoch 3/50", or "epoch 3" where the length of the run is a time."""
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else "")


class Bars(RichProgressBar):
    """Lightning's progress bars for a terminal, with loss, mIoU and the time left of the whole run.

    Args:
        left: the seconds that are left, if they are known.
    """

    def __init__(self, left: Callable[[], float | None]) -> None:
        super().__init__(refresh_rate=2, console_kwargs={"stderr": True})
        self.left = left

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        return [TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()]

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        names = {"train/loss_step": "loss", "val/miou": "mIoU"}
        shown = {names[key]: value for key, value in trainer.progress_bar_metrics.items() if key in names}
        left = self.left()
        return shown if left is None else {**shown, "left": in_words(left)}

    def _get_train_description(self, current_epoch: int) -> str:
        return epoch_of(self.trainer)


class Lines(Callback):
    """A line for every evaluation, with more after the first one, and in a log file one for every half minute.

    Args:
        config: the run.
        left: the seconds that are left, if they are known.
        pace: how fast it goes.
        shares: the share of each class in the training pixels.
        console: where to print.
    """

    every = 30.0

    def __init__(
        self,
        config: TrainConfig,
        left: Callable[[], float | None],
        pace: Pace,
        shares: Sequence[float],
        console: Console,
    ) -> None:
        self.config = config
        self.left = left
        self.pace = pace
        self.shares = shares
        self.console = console
        self.latest = time.monotonic()
        self.evaluated = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() - self.latest > self.every and not self.console.is_terminal:
            self._say(self._where(trainer))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, SegmentationTask) and pl_module.scores is not None
        scores, names = pl_module.scores, pl_module.model.info.class_names
        line = f"{self._where(trainer)}  mIoU {scores.miou:.1f}"
        if self.evaluated:
            self._say(f"{line}  {classes_in_short(scores.iou, names)}")
            return
        self.evaluated = True
        self._say(line, *class_lines(scores.iou, names), *remarks(scores.confusion, names, self.shares))
        if (waiting := self.pace.waiting) is not None and waiting >= 0.3:
            self._say(waiting_in_words(waiting, self.config.workers))

    def _where(self, trainer: L.Trainer) -> str:
        steps, left = trainer.estimated_stepping_batches, self.left()
        parts = [
            epoch_of(trainer),
            f"step {trainer.global_step}" + (f"/{steps}" if steps != math.inf else ""),
            f"loss {trainer.callback_metrics['train/loss_step']:.3f}",
        ]
        if self.pace.batches_a_second and self.config.batch_size != "auto":
            parts.append(f"{self.pace.batches_a_second * self.config.batch_size * self.config.processes:.3g} images/s")
        return "  ".join([*parts, f"{in_words(left)} left"] if left is not None else parts)

    def _say(self, *lines: str) -> None:
        self.latest = time.monotonic()
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
