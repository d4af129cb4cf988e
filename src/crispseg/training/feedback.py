"""Output of a run: lines, a progress bar in a terminal, and finally a picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from crispseg.data.dataset import SegmentationDataset
from crispseg.evaluation.bootstrap import percent
from crispseg.inference import Segmenter
from crispseg.io.images import colorize
from crispseg.io.parallel import spread
from crispseg.io.progress import print_lines
from crispseg.labels import Color
from crispseg.models.saving import MODEL
from crispseg.training.callbacks import MetricsFile
from crispseg.training.config import TrainConfig
from crispseg.training.pace import Pace, callback
from crispseg.training.task import SegmentationTask
from crispseg.training.training_data import TrainingData
from crispseg.visualization.pictures import error_legend, error_map, for_display, panels


class ProgressBar(Callback):
    """Show the progress, loss, mIoU and remaining time in the last line of a terminal, below all other lines."""

    every = 0.25  # seconds between two refreshes

    def __init__(self, pace: Pace, console: Console) -> None:
        text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        # A thread that refreshes it could hold a lock while workers are forked.
        self.bar = Progress(BarColumn(20), text, console=console, transient=True, auto_refresh=False)
        self.task = self.bar.add_task("", total=1)
        self.pace, self.miou, self.latest = pace, "", 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._show(trainer, f"loss {trainer.callback_metrics['train/loss_step']:.3f}{self.miou}")

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        self._show(trainer, f"evaluating {arguments[1] + 1}/{trainer.num_val_batches[0]}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.miou = f"  mIoU {trainer.callback_metrics['val/miou']:.1f}"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def _show(self, trainer: L.Trainer, state: str) -> None:
        if trainer.sanity_checking or time.monotonic() - self.latest < self.every:
            return
        self.latest = time.monotonic()
        line = f"{_epoch(trainer)}  {state}  {self.pace.left(trainer)} left"
        self.bar.update(self.task, completed=self.pace.progress_at(trainer.global_step), description=line, refresh=True)


class ProgressLines(Callback):
    """Print a line for every evaluation; in a log file, also print one every half minute."""

    every = 30.0

    def __init__(self, pace: Pace, console: Console) -> None:
        self.pace, self.console = pace, console
        self.latest = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.pace.sampled:
            line = f"evaluations use {of_val(trainer)}, because all take more than a tenth of the time"
            print_lines(self.console, [line])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() - self.latest > self.every and not self.console.is_terminal:
            self._print(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            assert isinstance(pl_module, SegmentationTask) and pl_module.scores is not None
            scores, names = pl_module.scores, pl_module.model.info.class_names
            self._print(trainer, f"  mIoU {scores.miou:.1f}  {class_scores(scores.iou, names, most=4)}")

    def _print(self, trainer: L.Trainer, scores: str = "") -> None:
        self.latest = time.monotonic()
        loss = trainer.callback_metrics["train/loss_step"]
        step = f"step {trainer.global_step}" + (f"/{self.pace.steps}" if self.pace.steps else "")
        line = f"{_epoch(trainer)}  {step}  loss {loss:.3f}  {self.pace.left(trainer)} left{scores}"
        if self.console.is_terminal:  # one line at any width
            self.console.print(line, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
        else:
            print_lines(self.console, [line])


def of_val(trainer: L.Trainer) -> str:
    """Return "val", or for example "24 of 201 val images" if evaluations use a sample."""
    loader: Any = trainer.val_dataloaders
    sampled = callback(trainer, Pace).sampled
    return f"{sampled} of {len(loader.dataset.dataset)} val images" if sampled else "val"


def _epoch(trainer: L.Trainer) -> str:
    """Return for example "epoch 3/50", or "epoch 3" if the run's length is a time."""
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else "")


def class_scores(iou: NDArray[np.float64], names: Sequence[str], most: int) -> str:
    """Format the IoU of all classes, or of the classes with the lowest IoU, as one line."""
    occurring = np.flatnonzero(~np.isnan(iou))
    texts = [f"{name} {percent(value)}" for name, value in zip(names, iou, strict=True)]
    if len(occurring) <= most:
        return "  ".join(texts[index] for index in occurring)
    lowest = iou.argsort(kind="stable")[: most - 1]  # NaN is last
    return "lowest " + ", ".join(texts[index] for index in lowest)


def closing_lines(config: TrainConfig, trainer: L.Trainer, data: TrainingData) -> list[str]:
    """Return the last lines of a finished run: its best scores."""
    table, names = callback(trainer, MetricsFile), data.train_report.labels.names
    iou = np.array([table.best[f"iou/{name}"] for name in names], float)  # NaN for None
    return [
        f"best mIoU on {of_val(trainer)}: {table.best['miou']:.2f} at step {table.best['step']:.0f}; "
        f"the model is in {Path(config.out) / MODEL}",
        f"IoU on val: {class_scores(iou, names, most=16)}",
    ]


def draw_panels(segmenters: Mapping[str, Segmenter], dataset: SegmentationDataset) -> NDArray[np.uint8]:
    """Draw four rows of image, ground truth, predictions and the last model's errors; return RGB `(H, W, 3)`."""
    classes, rows, kinds = dataset.labels, [], dict[str, Color]()
    for index in spread(len(dataset), 4):
        image, truth, _ = dataset[index]
        results = [segmenter(image) for segmenter in segmenters.values()]
        labels = [truth, *(result.labels for result in results)]
        colored = [colorize(ids, classes.palette) for ids in labels]
        picture = for_display(results[-1].image)
        rows.append([picture, *colored, error_map(picture, results[-1].labels, truth, classes)])
        kinds |= error_legend(rows[-1][-1])
    titles = ["image", "ground truth", *segmenters, "errors"]
    return panels(rows, titles, [*classes.legend, *kinds.items()])
