"""What a run says: lines in a log, bars in a terminal, pictures of val images, and what to try next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn

from crispseg.config.settings import plural
from crispseg.data import SplitReport
from crispseg.data.dataset import SegmentationDataset
from crispseg.evaluation.bootstrap import percent, ratio
from crispseg.io.images import as_picture, colorize, write_image
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import MODEL
from crispseg.training.config import TrainConfig
from crispseg.training.pace import Pace, callback, in_words
from crispseg.training.result import PICTURES
from crispseg.training.task import SegmentationTask
from crispseg.training.training_data import TrainingData, foldable, print_lines
from crispseg.visualization.pictures import panels

SHOWN = 12
"""Up to this many classes, all have a line; of more, those with the lowest IoU."""
FEW_STEPS = 50
"""Steps below which a line says so."""
MISTAKEN = 30.0
"""Percent of a class's pixels that are taken for another class from which a line says so."""
MUCH_WAITING = 0.3
"""Share of the time spent waiting for data from which a line says so."""
IMAGES = 4
"""Val images in a picture, from all over the split."""
KEPT = 10
"""Pictures that stay: the first one and the latest."""

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
    """A line for every evaluation, with all classes after the first one, and in a log file one every half minute."""

    every = 30.0

    def __init__(self, config: TrainConfig, left: Left, pace: Pace, console: Console) -> None:
        self.config, self.left, self.pace, self.console = config, left, pace, console
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
        else:
            self._print(line, *class_lines(scores.iou, names))
        self.evaluated = True

    def _status(self, trainer: L.Trainer) -> str:
        steps, left = trainer.estimated_stepping_batches, self.left()
        parts = [
            _epoch(trainer),
            f"step {trainer.global_step}" + (f"/{steps}" if steps != math.inf else ""),
            f"loss {trainer.callback_metrics['train/loss_step']:.3f}",
        ]
        if self.pace.a_step and self.config.batch_size != "auto":
            images = self.config.batch_size * self.config.accumulate * self.config.processes
            parts.append(f"{images / self.pace.a_step:.3g} images/s")
        return "  ".join([*parts, f"{in_words(left)} left"] if left is not None else parts)

    def _print(self, *lines: str) -> None:
        self.latest = time.monotonic()
        print_lines(self.console, lines)


def _epoch(trainer: L.Trainer) -> str:
    """Such as "epoch 3/50", or "epoch 3" if the length of the run is a time."""
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else "")


class ValidationPictures(Callback):
    """Writes `pictures/step_000123.png` at each evaluation, and to TensorBoard: images, truth and prediction.

    Args:
        folder: of the run.
        dataset: the val split.
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset) -> None:
        self.folder = folder / PICTURES
        self.dataset = dataset
        self.indices = {*np.linspace(0, len(dataset) - 1, IMAGES).astype(int).tolist()}
        self.predictions: dict[int, NDArray[np.uint8]] = {}

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
        write_image(self.folder / f"step_{trainer.global_step:06}.png", picture)
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


def class_lines(iou: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """The IoU of each class, or of the lowest ones, one a line."""
    order = range(len(names))
    if len(names) > SHOWN:
        order = np.argsort(np.where(np.isnan(iou), np.inf, iou), kind="stable")[:SHOWN].tolist()
    width = max(len(names[index]) for index in order)
    lines = [f"  {names[index]:{width}}  {percent(iou[index]):>5}" for index in order]
    return [*lines, f"  and {len(names) - SHOWN} classes above these, in metrics.csv"] if len(names) > SHOWN else lines


def classes_in_short(iou: NDArray[np.float64], names: Sequence[str], most: int = 4) -> str:
    """The IoU of all classes, or of the lowest ones that occur, for one line."""
    occurring = [index for index in range(len(names)) if not np.isnan(iou[index])]
    if len(occurring) <= most:
        return "  ".join(f"{names[index]} {percent(iou[index])}" for index in occurring)
    lowest = sorted(occurring, key=lambda index: float(iou[index]))[: most - 1]
    return "lowest " + ", ".join(f"{names[index]} {percent(iou[index])}" for index in lowest)


def closing_lines(config: TrainConfig, trainer: L.Trainer, data: TrainingData) -> list[str]:
    """What a finished run prints, by the callbacks that measured it: its best scores, and what to try next."""
    table, train = callback(trainer, MetricsFile), data.train_report
    names = train.labels.names
    best = table.best
    iou = np.array([np.nan if (value := best[f"iou/{name}"]) is None else value for name in names])
    confusion = None if table.confusion is None else table.confusion.numpy()
    never = [] if confusion is None else _never_predicted(confusion)
    tips = advice(config, train, data.val_report, table.rows, confusion, callback(trainer, Pace).waiting)
    return [
        f"best mIoU on val: {best['miou']:.2f} at step {best['step']:.0f}; the model is in {Path(config.out) / MODEL}",
        *class_lines(iou, names),
        *(f"{names[index]} is never predicted; {_rarity(train.shares[index])}" for index in never),
        *(["what to try, by what was measured:"] if tips else []),
        *(f"- {tip}" for tip in tips),
    ]


def advice(
    config: TrainConfig,
    train: SplitReport,
    val: SplitReport,
    rows: Sequence[Mapping[str, str]],
    confusion: NDArray[np.int64] | None,
    waiting: float | None,
    most: int = 4,
) -> list[str]:
    """Return what to try next, the most telling first.

    Args:
        config: the run.
        train, val: reports of the splits.
        rows: those of `metrics.csv`.
        confusion: `(C, C)` pixels at the best evaluation; None if unknown.
        waiting: share of the time spent waiting for data; None if unknown.
        most: at most this many.
    """
    lines = [_length(config, rows)]
    if waiting is not None and waiting > MUCH_WAITING:
        lines.append(
            f"data loading takes {100 * waiting:.0f} % of the time: use more workers than {config.workers} if there "
            "are processors for them, or smaller images on disk"
        )
    if val.images < 20:
        folds = min(5, train.images + val.images)
        remedy = f"; train with folds {folds} to see how much" if foldable(config.data) else ""
        lines.append(f"val has {plural(val.images, 'image')}: with others the scores may differ a lot{remedy}")
    if confusion is not None:
        lines.insert(1, _rare(config, train, confusion))
        confused = _mistaken(confusion, train.labels.names)[:1]
        lines += [f"{pair}: check that the masks draw the line between them alike everywhere" for pair in confused]
    return [line for line in lines if line][:most]


def _length(config: TrainConfig, rows: Sequence[Mapping[str, str]]) -> str | None:
    """Whether there were too few steps, mIoU still rose over the last third, or it fell from its best."""
    if int(rows[-1]["step"]) < FEW_STEPS:
        return (
            f"there were only {plural(int(rows[-1]['step']), 'step')}, in which a model hardly learns anything: train "
            "longer; in a given time, a smaller augment.crop or fewer val images allow more steps"
        )
    if len(rows) < 4:
        return None
    miou = [float(row["miou"] or 0) for row in rows]
    late = len(miou) - len(miou) // 3
    gain = max(miou[late:]) - max(miou[:late])
    if gain > 1:
        lengths = {"minutes": config.minutes, "iterations": config.iterations, "epochs": config.epochs}
        longer = next(f"{key} {2 * value:g}" for key, value in lengths.items() if value)
        return f"mIoU still rose by {gain:.1f} over the last third of the run: train longer, {longer}"
    best = int(np.argmax(miou))
    fall = miou[best] - miou[-1]
    if best < late and fall > 1 and float(rows[-1]["train_loss"]) < float(rows[best]["train_loss"]):
        return (
            f"mIoU fell by {fall:.1f} after step {rows[best]['step']} while the training loss went on falling: the "
            "model overfits; more images or stronger augmentation would help more than more steps"
        )
    return None


def _rare(config: TrainConfig, train: SplitReport, confusion: NDArray[np.int64]) -> str | None:
    """The rarest class that is found badly."""
    truth = confusion.sum(1)
    found = 100 * np.diag(confusion) / np.maximum(truth, 1)
    bad = [(share, at) for at, share in enumerate(train.shares) if 0 < share < 0.05 and truth[at] and found[at] < 50]
    if not bad:
        return None
    share, at = min(bad)
    weighted = config.class_weights is not None or "cross_entropy" not in config.losses
    remedy = "add images that contain it" if weighted else "try class_weights balanced"
    return f"{found[at]:.0f} % of the pixels of {train.labels.names[at]} are found, {_rarity(share)}: {remedy}"


def _rarity(share: float) -> str:
    digits = f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
    return f"it is {digits} % of the training pixels" if share else "the training masks do not contain it"


def _never_predicted(confusion: NDArray[np.int64]) -> list[int]:
    """The classes of the ground truth that are predicted nowhere."""
    return np.flatnonzero((confusion.sum(1) > 0) & (confusion.sum(0) == 0)).tolist()


def _mistaken(confusion: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Classes that are predicted somewhere but often taken for another, the worst first."""
    wrong = np.nan_to_num(100 * ratio(confusion, confusion.sum(1, keepdims=True)))
    np.fill_diagonal(wrong, 0)
    pairs = [(float(wrong[row].max()), row, int(wrong[row].argmax())) for row in range(len(wrong))]
    never = _never_predicted(confusion)
    return [
        f"{share:.0f} % of the pixels of {names[row]} are taken for {names[other]}"
        for share, row, other in sorted(pairs, reverse=True)
        if share >= MISTAKEN and row not in never
    ]
