"""Cross-validation: as many runs as there are parts of the data, each with another part as its val split."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
import yaml
from rich.console import Console

from crispseg.data.folder import Folder
from crispseg.errors import CrispsegError, Interrupted
from crispseg.evaluation.tables import percent
from crispseg.io.files import atomic_path, owned
from crispseg.training.checkpoints import LAST
from crispseg.training.config import CONFIG, TrainConfig, config_to_dict
from crispseg.training.fitting import MINUTES
from crispseg.training.pace import in_words
from crispseg.training.processes import agreed, is_first_process, joined
from crispseg.training.run import train

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
        resume: go on in a folder that holds some: finished folds are left as they are.
        console: where to print.

    Returns:
        For the folder of each fold, the scores on its val split.

    Raises:
        CrispsegError: the data are no folder of images; the folder holds folds or a run already, or with `resume` no
            folds; and as `train` does.
        Interrupted: as `train` does.
    """
    with joined(), ExitStack() as stack:
        if not is_first_process():
            return _train_folds(config, folds, resume, Console(quiet=True))
        stack.enter_context(owned(Path(config.out)))
        return _train_folds(config, folds, resume, console or Console(stderr=True))


def _train_folds(config: TrainConfig, folds: int, resume: bool, console: Console) -> dict[str, Scores]:
    data, out = config.data, Path(config.out)
    if not isinstance(data, Folder):
        raise CrispsegError(f"--folds divides images of your own, but the data are {data.name}; give --data folder")
    data = dataclasses.replace(data, folds=folds)
    whole = dataclasses.replace(config, data=data)
    scores = agreed(lambda: _scores(whole, resume=resume))
    if not resume:
        _ = data.pairs("val")  # too few images are told first
    minutes = config.minutes or (None if config.epochs or config.iterations else MINUTES)
    if minutes and not resume:
        line = f"{folds} folds of {minutes:g} min each: {in_words(60 * folds * minutes)} in all"
        console.print(line, highlight=False)
    _write(out / SCORES, json.dumps(scores))
    _write(out / CONFIG, yaml.safe_dump(config_to_dict(whole), sort_keys=False))
    for fold in range(1, folds + 1):
        folder = out / f"fold_{fold}"
        if folder.name in scores:
            continue
        console.print(f"fold {fold} of {folds}", style="bold", highlight=False)
        own = dataclasses.replace(config, data=dataclasses.replace(data, fold=fold), out=folder)
        try:
            run = train(own, resume=resume and agreed((folder / LAST).is_file), console=console)
        except Interrupted as stop:
            line = f"interrupted in fold {fold} of {folds}; go on with: crispseg train --resume {out}"
            raise Interrupted(line, stop.number) from None
        scores[folder.name] = {"miou": run.miou, **run.iou}
        _write(out / SCORES, json.dumps(scores, indent=1))
    for line in fold_lines(scores):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return scores


def _scores(config: TrainConfig, *, resume: bool) -> dict[str, Scores]:
    """The scores of the folds that are finished. Raises where the folder does not let these be trained."""
    out = Path(config.out)
    file = out / SCORES
    if resume:
        if not file.is_file():
            raise CrispsegError(f"{out} holds no folds to resume; start them again without --resume")
        scores: dict[str, Scores] = json.loads(file.read_text("utf-8"))
        return scores
    if is_first_process():  # to the others the first has made way
        if (out / LAST).is_file():
            raise CrispsegError(f"{out} holds a run already; choose another --out")
        if (out / "fold_1" / LAST).is_file():  # before, there is nothing to go on with
            raise CrispsegError(f"{out} holds folds already; resume them with --resume {out}, or choose another --out")
    return {}


def fold_lines(scores: dict[str, Scores]) -> list[str]:
    """The scores of each fold, their mean and standard deviation, and what follows from them.

    Args:
        scores: by the name of a fold's folder.
    """
    keys = list(next(iter(scores.values())))
    width = max(map(len, keys))
    table = np.array([[np.nan if each[key] is None else each[key] for key in keys] for each in scores.values()], float)
    lines = [f"IoU on the val split of each of {len(scores)} folds, mean ± standard deviation:"]
    for key, values in zip(keys, table.T, strict=True):
        present = values[~np.isnan(values)]
        spread = present.std(ddof=1) if len(present) > 1 else np.nan
        mean = present.mean() if len(present) else np.nan
        name = "mIoU" if key == "miou" else key
        lines.append(f"  {name:{width}}  {percent(mean):>5} ± {percent(spread):4}  {'  '.join(map(percent, values))}")
    return [
        *lines,
        "the mean is what to expect on other images; a fold that scores higher may just have easier val images, so "
        "once the settings are chosen, train one more model on nearly all images",
    ]


def _write(path: Path, text: str) -> None:
    if not is_first_process():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
