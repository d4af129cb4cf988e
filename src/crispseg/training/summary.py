"""What a finished run prints: its scores, where things are, what comes next and what to try."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TypeVar

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from crispseg.data import SplitReport
from crispseg.data.dataset import DataSource, FileDataset, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import MODEL
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import Measured, advice, class_lines, never_predicted, share_in_words
from crispseg.training.pace import Pace
from crispseg.training.pictures import Pictures

Kind = TypeVar("Kind", bound=Callback)


def closing_lines(
    config: TrainConfig, trainer: L.Trainer, train: SplitReport, val: SplitReport, val_set: SegmentationDataset
) -> list[str]:
    """The lines of a run that came to its end; all numbers are those of the best evaluation."""
    table, pictures = _callback(trainer, MetricsFile), _callback(trainer, Pictures)
    folder, names = Path(config.out), train.labels.names
    best = best_row(trainer)
    iou = np.array([float(best[f"iou/{name}"] or "nan") for name in names])
    confusion = None if table.confusion is None else table.confusion.numpy()
    lines = [
        f"best mIoU on val: {float(best['miou']):.2f} at step {best['step']}; the model is in {folder / MODEL}",
        *class_lines(iou, names),
    ]
    never = [] if confusion is None else never_predicted(confusion)
    lines += [f"{names[index]} is never predicted; {share_in_words(train.shares[index])}" for index in never]
    if pictures.latest:
        lines.append(f"pictures: {pictures.latest.parent}")
    lines.append("next:")
    lines += [f"  {command}" for command in _commands(folder, val_set)]
    if tips := advice(_measured(config, trainer, train, val)):
        lines += ["what to try, by what was measured:", *(f"- {tip}" for tip in tips)]
    return lines


def foldable(data: DataSource) -> bool:
    """Whether `--folds` divides the data, and has not done so yet."""
    return isinstance(data, Folder) and data.folds is None


def best_row(trainer: L.Trainer) -> dict[str, str]:
    """The row of the best evaluation in `metrics.csv`."""
    return max(_callback(trainer, MetricsFile).rows, key=lambda row: float(row["miou"] or "-inf"))


def _commands(folder: Path, val_set: SegmentationDataset) -> list[str]:
    run = shlex.quote(str(folder))
    image = shlex.quote(str(val_set.pairs[0].image)) if isinstance(val_set, FileDataset) else "IMAGE"
    return [
        f"crispseg predict {run} {image} --out predictions",
        f"crispseg evaluate {run} --html scores.html",
        f"crispseg inspect {run} {image} --out inspect.html",
    ]


def _measured(config: TrainConfig, trainer: L.Trainer, train: SplitReport, val: SplitReport) -> Measured:
    table, pace = _callback(trainer, MetricsFile), _callback(trainer, Pace)
    if config.minutes:
        length = f"--minutes {2 * config.minutes:g}"
    else:
        length = (
            f"--iterations {2 * config.iterations}" if config.iterations else f"--epochs {2 * (config.epochs or 1)}"
        )
    return Measured(
        steps=[int(row["step"]) for row in table.rows],
        miou=[float(row["miou"] or 0) for row in table.rows],
        losses=[float(row["train_loss"]) for row in table.rows],
        confusion=None if table.confusion is None else table.confusion.numpy(),
        train=train,
        val=val,
        waiting=pace.waiting,
        length=length,
        workers=config.workers,
        weighted=config.class_weights is not None or "cross_entropy" not in config.losses,
        foldable=foldable(config.data),
    )


def _callback(trainer: L.Trainer, kind: type[Kind]) -> Kind:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(each for each in callbacks if isinstance(each, kind))
