"""What a person watches while a run goes on: lines in a log, bars in a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn

from crispseg.training.config import TrainConfig
from crispseg.training.feedback import class_lines, classes_in_short, remarks, waiting_in_words
from crispseg.training.pace import Pace, in_words
from crispseg.training.task import SegmentationTask
from crispseg.training.training_data import print_lines

Left = Callable[[], float | None]
"""The seconds that are left, if they are known."""


class ProgressBars(RichProgressBar):
    """Lightning's progress bars for a terminal, with loss, mIoU and the time left of the whole run."""

    def __init__(self, left: Left) -> None:
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
        return _epoch(self.trainer)


class ProgressLines(Callback):
    """A line for every evaluation, with more after the first one, and in a log file one for every half minute.

    Args:
        config: the run.
        left: the time left.
        pace: how fast it goes.
        shares: the share of each class in the training pixels.
        console: where to print.
    """

    every = 30.0

    def __init__(self, config: TrainConfig, left: Left, pace: Pace, shares: Sequence[float], console: Console) -> None:
        self.config, self.left, self.pace, self.shares, self.console = config, left, pace, shares, console
        self.latest = time.monotonic()
        self.evaluated = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() - self.latest > self.every and not self.console.is_terminal:
            self._print(self._status(trainer))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, SegmentationTask) and pl_module.scores is not None
        scores, names = pl_module.scores, pl_module.model.info.class_names
        line = f"{self._status(trainer)}  mIoU {scores.miou:.1f}"
        if self.evaluated:
            self._print(f"{line}  {classes_in_short(scores.iou, names)}")
            return
        self.evaluated = True
        self._print(line, *class_lines(scores.iou, names), *remarks(scores.confusion, names, self.shares))
        if waiting := waiting_in_words(self.pace.waiting, self.config.workers):
            self._print(waiting)

    def _status(self, trainer: L.Trainer) -> str:
        steps, left = trainer.estimated_stepping_batches, self.left()
        parts = [
            _epoch(trainer),
            f"step {trainer.global_step}" + (f"/{steps}" if steps != math.inf else ""),
            f"loss {trainer.callback_metrics['train/loss_step']:.3f}",
        ]
        if self.pace.batches_a_second and self.config.batch_size != "auto":
            parts.append(f"{self.pace.batches_a_second * self.config.batch_size * self.config.processes:.3g} images/s")
        return "  ".join([*parts, f"{in_words(left)} left"] if left is not None else parts)

    def _print(self, *lines: str) -> None:
        self.latest = time.monotonic()
        print_lines(self.console, lines)


def _epoch(trainer: L.Trainer) -> str:
    """Such as "epoch 3/50", or "epoch 3" if the length of the run is a time."""
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else "")
