"""Cross-validation: one run per fold of the data; the fold is the val split of its run."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console

from crispseg.config.settings import CONFIG
from crispseg.errors import CrispsegError, Interrupted, command_line
from crispseg.evaluation.bootstrap import percent, text_table
from crispseg.io.files import write_table
from crispseg.models.saving import FOLDS
from crispseg.training.checkpoints import check_folder
from crispseg.training.config import TrainConfig
from crispseg.training.fit import train
from crispseg.training.trainer import is_first_process, record, write_text

TABLE = "folds.csv"
FoldScores: TypeAlias = dict[str, float | None]  # `miou` and the IoU of each class; None if the class does not occur


def train_folds(
    config: TrainConfig, folds: int, *, resume: bool = False, console: Console | None = None
) -> dict[str, FoldScores]:
    """Train one model per fold of the data, in the folders `fold_1`, `fold_2`, … of `config.out`.

    With `resume`, unfinished folds in `config.out` are resumed. At the end, `folds.csv` has the scores with their means
    and standard deviations, and a `Segmenter` of `config.out` averages the probabilities of all folds.

    Returns:
        Scores of each fold on its val split, by the name of its folder.

    Raises:
        CrispsegError: the data are not a folder of images; the folder already contains folds or a run, or, with
            `resume`, contains no folds; or an error of `train`.
        Interrupted: SIGINT or SIGTERM arrived during training.
    """
    data = config.data.with_fold(folds, 1)
    config = dataclasses.replace(config, data=data)
    console = (console or Console(stderr=True)) if is_first_process() else Console(quiet=True)
    check_folds(config.out, resume)
    _ = data.pairs("val")  # report too few images before any file is written
    scores: dict[str, FoldScores] = {}
    if not resume:
        write_scores(config, scores)
    record(config)
    for fold in range(1, folds + 1):
        place = Path(config.out) / f"fold_{fold}"
        console.print(f"fold {fold} of {folds}", style="bold", highlight=False)
        own = dataclasses.replace(config, data=data.with_fold(folds, fold), out=place)
        try:
            run = train(own, resume=resume and (place / CONFIG).is_file(), console=console)
        except Interrupted as stop:
            again = command_line(["train"], {"resume": str(config.out)})
            raise Interrupted(f"interrupted in fold {fold} of {folds}; resume: {again}", stop.number) from None
        scores[place.name] = {"miou": run.miou, **run.iou}
        write_scores(config, scores)
    rows = fold_rows(scores)
    console.print(text_table(rows[0], [[name, *map(percent, values)] for name, *values in rows[1:]]))
    if is_first_process():
        write_table(Path(config.out) / TABLE, rows)
    return scores


def check_folds(out: Path, resume: bool) -> None:
    """Raise a CrispsegError if the folder already has folds or a run or, to resume, no folds."""
    if resume and not (out / FOLDS).is_file():
        raise CrispsegError(f"{out} contains no folds to resume; start them again")
    if not resume and is_first_process():
        check_folder(out, resume=False)


def write_scores(config: TrainConfig, scores: dict[str, FoldScores]) -> None:
    write_text(Path(config.out) / FOLDS, json.dumps(scores, indent=1))


def fold_rows(scores: dict[str, FoldScores]) -> list[list[Any]]:
    """Return a table of the scores of each fold, with their mean and standard deviation, below its header."""
    rows: list[list[Any]] = [["IoU on val", "mean", "sd", *scores]]
    for key in next(iter(scores.values())):
        values = np.array([fold[key] for fold in scores.values()], float)  # NaN for None
        with warnings.catch_warnings(action="ignore"):  # a class may occur in one fold only, or in none
            spread = np.nanmean(values), np.nanstd(values, ddof=1)
        rows.append(["mIoU" if key == "miou" else key, *np.round([*spread, *values], 4)])
    return rows
