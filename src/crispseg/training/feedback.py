"""What an evaluation tells about single classes, and what a run suggests for the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from crispseg.config.settings import plural
from crispseg.data import Augment, SplitReport
from crispseg.evaluation.bootstrap import percent, ratio
from crispseg.models.info import MIN_SIDE
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import MODEL
from crispseg.training.config import TrainConfig
from crispseg.training.pace import Pace, callback
from crispseg.training.training_data import TrainingData, foldable

SHOWN = 12
"""Up to this many classes, all have a line; of more, those with the lowest IoU."""
FEW_STEPS = 50
"""Steps below which a line says so."""
MOST_PADDING = 0.5
"""Share of padding in a crop from which a line says so."""
MISTAKEN = 30.0
"""Percent of a class's pixels that are taken for another class from which a line says so."""
MUCH_WAITING = 0.3
"""Share of the time spent waiting for data from which a line says so."""


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


def remarks(confusion: NDArray[np.int64], names: Sequence[str], shares: Sequence[float], most: int = 3) -> list[str]:
    """What is wrong in an evaluation: classes that are never predicted, or taken for others.

    Args:
        confusion: `(C, C)` pixels; rows are the ground truth.
        names: names of the classes.
        shares: the share of each class in the training pixels.
        most: at most this many.
    """
    never = _never_predicted(confusion)
    lines = [f"{names[index]} has not been predicted so far; {_rarity(shares[index])}" for index in never]
    if len(never) > 2:
        lines = [f"{len(never)} classes have not been predicted so far: {', '.join(names[i] for i in never)}"]
    return [*lines, *_mistaken(confusion, names)][:most]


def waiting_in_words(waiting: float | None, workers: int) -> str | None:
    """That loading the data takes much of the time, and what to do; None if it does not."""
    if waiting is None or waiting < MUCH_WAITING:
        return None
    return (
        f"data loading takes {100 * waiting:.0f} % of the time: use more workers than {workers} if there are "
        "processors for them, or smaller images on disk"
    )


def foretold(steps: int | None, per_epoch: int, augment: Augment, largest: tuple[int, int]) -> list[str]:
    """What to expect of few steps, and of crops that are mostly padding, before training.

    Args:
        steps: of the whole run, None if its length is a time.
        per_epoch: steps of an epoch.
        augment: with the crop.
        largest: height and width up to which there are images.
    """
    lines = []
    if steps is not None and steps < FEW_STEPS:
        lines.append(
            f"this run has only {plural(steps, 'step')}, in which a model hardly learns anything; set minutes to 10, "
            f"or epochs to {-(-500 // per_epoch)} for about 500 steps"
        )
    if augment.window and augment.longer_side is augment.shorter_side is None:
        sides = [(crop, min(crop, side * augment.scale[1])) for crop, side in zip(augment.window, largest, strict=True)]
        padding = 1 - math.prod(side / crop for crop, side in sides)
        side = max(min(largest), MIN_SIDE)
        if padding > MOST_PADDING and side < max(augment.window):
            crop, image = ("×".join(map(str, size)) for size in (augment.window, largest))
            lines.append(
                f"augment.crop is {crop}, but images are at most {image} pixels (height x width): at least "
                f"{padding:.0%} of a crop is padding, from which nothing is learned; set augment.crop to {side}"
            )
    return lines


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
    """What to try next, the most telling first.

    Args:
        config: the run.
        train, val: what the splits hold.
        rows: those of `metrics.csv`.
        confusion: `(C, C)` pixels at the best evaluation; None if unknown.
        waiting: share of the time spent waiting for data, if it is known.
        most: at most this many.
    """
    lines = [_length(config, rows), waiting_in_words(waiting, config.workers)]
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
