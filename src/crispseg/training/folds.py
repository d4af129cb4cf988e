"""Cross-validation: one run for each fold of the data, which is its val split."""

from __future__ import annotations

import dataclasses
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TypeAlias

import numpy as np
import yaml
from rich.console import Console

from crispseg.config.settings import CONFIG
from crispseg.data.folder import Folder
from crispseg.errors import CrispsegError, Interrupted
from crispseg.evaluation.bootstrap import percent
from crispseg.io.files import atomic_path, owned
from crispseg.training.checkpoints import LAST
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.fit import train
from crispseg.training.trainer import is_first_process
from crispseg.training.training_data import print_lines

Scores: TypeAlias = dict[str, float | None]
"""`miou`, and the IoU of each class; None where it does not occur."""

SCORES = "folds.json"
"""The scores of the folds that are finished, in the folder of all of them."""


def train_folds(
    config: TrainConfig, folds: int, *, resume: bool = False, console: Console | None = None
) -> dict[str, Scores]:
    """Train a model for each fold of the data, in the folders `fold_1` and so on of `config.out`.

    Args:
        config: the run.
        folds: how many there are.
        resume: resume the folds in `config.out`; finished ones are left as they are.
        console: where to print.

    Returns:
        For the folder of each fold, the scores on its val split.

    Raises:
        CrispsegError: the data are no folder of images; the folder holds folds or a run already, or with `resume` no
            folds; and as `train` does.
        Interrupted: as `train` does.
    """
    if not isinstance(config.data, Folder):
        raise CrispsegError(f"folds divide your own images, but the data are {config.data.name}")
    data, out, first = dataclasses.replace(config.data, folds=folds), Path(config.out), is_first_process()
    console = (console or Console(stderr=True)) if first else Console(quiet=True)
    with owned(out) if first else nullcontext():
        scores: dict[str, Scores] = {}
        if resume:
            if not (out / SCORES).is_file():
                raise CrispsegError(f"{out} holds no folds to resume; start them again")
            scores = json.loads((out / SCORES).read_text("utf-8"))
        else:
            for found, what in ((out / LAST, "a run"), (out / "fold_1" / LAST, "folds")):
                if first and found.is_file():
                    raise CrispsegError(f"{out} already holds {what}; resume, or choose another out")
            _ = data.pairs("val")  # too few images are reported first
        _write(out / SCORES, json.dumps(scores))
        settings = config_to_dict(dataclasses.replace(config, data=data))
        _write(out / CONFIG, yaml.safe_dump(settings, sort_keys=False))
        for fold in range(1, folds + 1):
            folder = out / f"fold_{fold}"
            if folder.name in scores:
                continue
            print_lines(console, [f"fold {fold} of {folds}"], "bold")
            own = dataclasses.replace(config, data=dataclasses.replace(data, fold=fold), out=folder)
            try:
                run = train(own, resume=resume and (folder / LAST).is_file(), console=console)
            except Interrupted as stop:
                line = f"interrupted in fold {fold} of {folds}; resume the folds in {out}"
                raise Interrupted(line, stop.number) from None
            scores[folder.name] = {"miou": run.miou, **run.iou}
            _write(out / SCORES, json.dumps(scores, indent=1))
        print_lines(console, fold_lines(scores))
        return scores


def fold_lines(scores: dict[str, Scores]) -> list[str]:
    """Return a table of the scores of each fold, with their mean and standard deviation."""
    keys = list(next(iter(scores.values())))
    width = max(map(len, keys))
    table = np.array([[np.nan if each[key] is None else each[key] for key in keys] for each in scores.values()], float)
    lines = [f"IoU on the val split of each of {len(scores)} folds, mean ± standard deviation:"]
    for key, values in zip(keys, table.T, strict=True):
        with warnings.catch_warnings(action="ignore"):  # a class may occur in one fold only, or in none
            mean, spread = np.nanmean(values), np.nanstd(values, ddof=1)
        name = "mIoU" if key == "miou" else key
        lines.append(f"  {name:{width}}  {percent(mean):>5} ± {percent(spread):4}  {'  '.join(map(percent, values))}")
    return [
        *lines,
        "the mean is what to expect on other images; a fold that scores higher may just have easier val images, so "
        "once the settings are chosen, train one more model on nearly all images",
    ]


def _write(path: Path, text: str) -> None:
    if is_first_process():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
