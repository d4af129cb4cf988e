"""What an evaluation says about single classes, and what a run says about the next one, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crispseg.config.wording import plural
from crispseg.data import Augment, SplitReport
from crispseg.evaluation.bootstrap import ratio
from crispseg.evaluation.tables import percent
from crispseg.inference.protocols import MIN_SIDE

SHOWN = 12
"""Up to so many classes, all have a line; of more, those with the lowest IoU."""
FEW_STEPS = 50
"""With fewer steps than these, a line says so."""
MOST_FILLED = 0.5
"""Share of a crop beyond the image, from which this is said."""
MISTAKEN = 30.0
"""Percent of a class's pixels that are taken for one other class, from which this is said."""


def share_in_words(share: float) -> str:
    """How much of the training pixels a class is."""
    digits = f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
    return f"it is {digits} % of the training pixels" if share else "the training masks hold none of it"


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


def never_predicted(confusion: NDArray[np.int64]) -> list[int]:
    """The classes of the truth that are predicted nowhere."""
    return np.flatnonzero((confusion.sum(1) > 0) & (confusion.sum(0) == 0)).tolist()


def mistaken(confusion: NDArray[np.int64]) -> list[tuple[float, int, int]]:
    """Percent of a class's pixels that are taken for another, the class and the other; the largest first."""
    wrong = np.nan_to_num(100 * ratio(confusion, confusion.sum(1, keepdims=True)))
    np.fill_diagonal(wrong, 0)
    found = [(float(wrong[row].max()), row, int(wrong[row].argmax())) for row in range(len(wrong))]
    return sorted((each for each in found if each[0] >= MISTAKEN), reverse=True)


def remarks(confusion: NDArray[np.int64], names: Sequence[str], shares: Sequence[float], most: int = 3) -> list[str]:
    """What is off in an evaluation: classes that are never predicted, or taken for others.

    Args:
        confusion: `(C, C)` pixels; rows are the truth.
        names: names of the classes.
        shares: the share of each class in the training pixels.
        most: at most so many.
    """
    never = never_predicted(confusion)
    said = [f"{names[index]} has not been predicted at all so far; {share_in_words(shares[index])}" for index in never]
    if len(never) > 2:
        said = [f"{len(never)} classes have not been predicted at all so far: {', '.join(names[i] for i in never)}"]
    said += [
        f"{share:.0f} % of the pixels of {names[row]} are taken for {names[other]}"
        for share, row, other in mistaken(confusion)
        if row not in never
    ]
    return said[:most]


@dataclass(frozen=True)
class Measured:
    """What was measured in a run, and what it was like."""

    steps: Sequence[int]
    """Of the evaluations."""
    miou: Sequence[float]
    """Of the evaluations, in percent."""
    losses: Sequence[float]
    """Training losses at the evaluations."""
    confusion: NDArray[np.int64] | None
    """`(C, C)` pixels at the best evaluation, None where it is not known."""
    train: SplitReport
    val: SplitReport
    waiting: float | None
    """Share of the time in which the processor waited for data."""
    length: str
    """What makes a run twice as long, such as `--epochs 100`."""
    workers: int
    weighted: bool
    """Whether rare classes already weigh more, or cannot."""
    foldable: bool
    """Whether the data can be divided anew."""


def advice(run: Measured, most: int = 4) -> list[str]:
    """What to try next: only what was measured in this run says so, the most telling first."""
    return [
        line for line in (_few(run) or _length(run), _rare(run), _data(run), _uncertain(run), _confused(run)) if line
    ][:most]


def _few(run: Measured) -> str | None:
    """Steps so few that the curve tells nothing."""
    if not run.steps or run.steps[-1] >= FEW_STEPS:
        return None
    return (
        f"there were only {plural(run.steps[-1], 'step')}, in which a model hardly learns anything: train longer; in a "
        "given time, a smaller --augment.crop or fewer val images make room for more"
    )


def _length(run: Measured) -> str | None:
    """The curve of val's mIoU: whether it still rose over the last third, or fell from its best."""
    if len(run.miou) < 4:
        return None
    late = len(run.miou) - len(run.miou) // 3
    gain = max(run.miou[late:]) - max(run.miou[:late])
    if gain > 1:
        return f"mIoU still rose by {gain:.1f} over the last third of the run: train longer, {run.length}"
    best = int(np.argmax(run.miou))
    fall = run.miou[best] - run.miou[-1]
    if best < late and fall > 1 and run.losses[-1] < run.losses[best]:
        return (
            f"mIoU fell by {fall:.1f} after step {run.steps[best]} while the training loss went on falling: the "
            "model learns the images by heart; more images, or stronger augmentation, would help more than more steps"
        )
    return None


def _rare(run: Measured) -> str | None:
    """The rarest class that is found badly although it is rare."""
    if run.confusion is None:
        return None
    truth = run.confusion.sum(1)
    found = 100 * np.diag(run.confusion) / np.maximum(truth, 1)
    bad = [
        index for index, share in enumerate(run.train.shares) if 0 < share < 0.05 and truth[index] and found[index] < 50
    ]
    if not bad:
        return None
    index = min(bad, key=lambda each: run.train.shares[each])
    remedy = "more images that show it" if run.weighted else "--class_weights balanced"
    return (
        f"{found[index]:.0f} % of the pixels of {run.train.labels.names[index]} are found, "
        f"{share_in_words(run.train.shares[index])}: try {remedy}"
    )


def _data(run: Measured) -> str | None:
    if run.waiting is None or run.waiting < 0.3:
        return None
    return waiting_in_words(run.waiting, run.workers)


def waiting_in_words(waiting: float, workers: int) -> str:
    """That loading is what takes the time, and what to do."""
    return (
        f"data loading takes {100 * waiting:.0f} % of the time: more --workers than {workers}, if there are processors "
        "for them, or smaller images on disk"
    )


def _uncertain(run: Measured) -> str | None:
    if run.val.images >= 20:
        return None
    folds = min(5, run.train.images + run.val.images)
    remedy = f"; --folds {folds} says how much" if run.foldable else ""
    return f"val has {plural(run.val.images, 'image')}: with others the scores may be quite different{remedy}"


def _confused(run: Measured) -> str | None:
    if run.confusion is None:
        return None
    never = never_predicted(run.confusion)  # of which another line tells
    pairs = [pair for pair in mistaken(run.confusion) if pair[1] not in never]
    if not pairs:
        return None
    share, row, other = pairs[0]
    names = run.train.labels.names
    return (
        f"{share:.0f} % of the pixels of {names[row]} are taken for {names[other]}: see in the pictures whether the "
        "masks draw the line between them everywhere alike"
    )


def foretold(steps: int | None, per_epoch: int, augment: Augment, largest: tuple[int, int]) -> list[str]:
    """What will come of few steps, and of crops that are mostly filling, said before training.

    Args:
        steps: of the whole run, None where its length is a time.
        per_epoch: steps of an epoch.
        augment: with the crop.
        largest: height and width up to which there are images.
    """
    lines = []
    if steps is not None and steps < FEW_STEPS:
        lines.append(
            f"this run has {steps} steps in all, in which a model hardly learns anything; give --minutes 10, or "
            f"--epochs {-(-500 // per_epoch)} for some 500 steps"
        )
    if augment.window and augment.longer_side is augment.shorter_side is None:
        sides = [(crop, min(crop, side * augment.scale[1])) for crop, side in zip(augment.window, largest, strict=True)]
        filled = 1 - math.prod(side / crop for crop, side in sides)
        side = max(min(largest), MIN_SIDE)
        if filled > MOST_FILLED and side < max(augment.window):
            shown = ["×".join(map(str, size)) for size in (augment.window, largest)]
            lines.append(
                f"augment.crop is {shown[0]}, but images are at most {shown[1]} pixels (height x width): "
                f"at least {filled:.0%} of a crop is filling, from which nothing is learned; give --augment.crop {side}"
            )
    return lines
