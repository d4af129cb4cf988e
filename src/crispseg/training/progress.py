"""What a person watches while a run goes on: lines in a log, bars in a terminal, pictures of val images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn

from crispseg.data.dataset import SegmentationDataset
from crispseg.io.images import as_picture, colorize, write_image
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import class_lines, classes_in_short, remarks, waiting_in_words
from crispseg.training.pace import Pace, in_words
from crispseg.training.task import SegmentationTask
from crispseg.training.training_data import print_lines
from crispseg.visualization.pictures import panels

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


IMAGES = 4
KEPT = 10
"""Pictures that stay: the first one and the latest."""


def telling_images(present: NDArray[np.bool_], most: int = IMAGES) -> list[int]:
    """Images that together show as many classes as so few can, and others from all over the split.

    Args:
        present: `(images, classes)`, which classes each shows.
        most: so many, or all where there are fewer.
    """
    missing = np.ones(present.shape[1], bool)
    chosen: list[int] = []
    while len(chosen) < min(most, len(present)):
        gains = (present & missing).sum(1)
        if chosen and not gains.any():
            break
        chosen.append(int(gains.argmax()))
        missing &= ~present[chosen[-1]]
    others = [index for index in np.linspace(0, len(present) - 1, 2 * most).astype(int) if index not in chosen]
    return sorted([*chosen, *dict.fromkeys(map(int, others))][:most])


class ValidationPictures(Callback):
    """Writes `pictures/step_000123.png` at each evaluation, and to TensorBoard: images, truth and prediction.

    Args:
        folder: of the run.
        dataset: the val split.
        indices: the images to show.
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset, indices: Sequence[int]) -> None:
        self.folder = folder / "pictures"
        self.dataset = dataset
        self.indices = frozenset(indices)
        self.predictions: dict[int, NDArray[np.uint8]] = {}
        self.latest: Path | None = None

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        index = batch_idx * trainer.world_size + trainer.global_rank
        if index in self.indices and not trainer.sanity_checking:
            self.predictions[index] = outputs[0].cpu().numpy().astype(np.uint8)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.predictions or not trainer.is_global_zero:  # another process may have the images
            return
        picture = self.draw()
        self.predictions.clear()
        self.latest = self.folder / f"step_{trainer.global_step:06}.png"
        write_image(self.latest, picture)
        for old in sorted(self.folder.glob("step_*.png"))[1 : 1 - KEPT]:
            old.unlink()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val", picture, trainer.global_step, dataformats="HWC")

    def draw(self) -> NDArray[np.uint8]:
        """A row for each image, `(H, W, 3)` RGB."""
        palette = self.dataset.labels.palette
        rows = []
        for index, prediction in sorted(self.predictions.items()):
            image, truth, _ = self.dataset[index]
            rows.append([as_picture(image), colorize(truth, palette), colorize(prediction, palette)])
        return panels(rows, ["image", "ground truth", "prediction"], self.dataset.labels)
