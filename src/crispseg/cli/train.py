"""`crispseg train [FOLDER | CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crispseg.cli.parsing import parse_training
from crispseg.data.dataset import FileDataset
from crispseg.errors import CrispsegError
from crispseg.training.config import CONFIG, EARLIER

if TYPE_CHECKING:
    from crispseg.training import Run

TAKEN = {
    "--resume": "folder of a run that was stopped, or of folds, to go on with",
    "--folds": "number of models to train, each with another part of the images as the val split",
}
DESCRIPTION = (
    "Train a model. Settings come from flags and, given first, from a YAML file, or from a folder of data whose layout "
    "'crispseg doctor' knows. "
    "'crispseg train --resume RUN' continues a run from its last checkpoint, with its settings and any flags on top. "
    "'crispseg train --folds 5 …' trains five models, each with another fifth of your images as the val split, and "
    "says how much their scores differ."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    if not argv:
        raise CrispsegError("there are no data; give their folder, as in 'crispseg train photos'")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in TAKEN:
        first.add_argument(flag, nargs="?", const="")
    chosen, argv = first.parse_known_args(argv)
    folder = chosen.resume
    if folder == "":
        raise CrispsegError("--resume has no value; give the folder of a run")
    if chosen.folds is not None and not chosen.folds.isdecimal():
        raise CrispsegError(
            f"--folds {f'is {chosen.folds}' if chosen.folds else 'has no value'}; give a number, such as 5"
        )
    folds = chosen.folds and int(chosen.folds)
    recipe = {}
    if folder is not None:
        if not (Path(folder) / CONFIG).is_file():
            raise CrispsegError(f"--resume {folder}: it holds no {CONFIG}; give the folder of a run")
        argv, recipe = [str(Path(folder) / CONFIG), *argv, f"--out={folder}"], EARLIER
    resumed = folder is not None
    config = parse_training(argv, recipe, prog="crispseg train", description=DESCRIPTION, resumed=resumed, shown=TAKEN)

    # Lightning takes seconds, which --help and a mistake need not wait for
    from crispseg.training import train, train_folds
    from crispseg.training.folds import SCORES

    if folder is not None and (Path(folder) / SCORES).is_file():
        folds = getattr(config.data, "folds", None)
    if folds is None:
        print_next(train(config, resume=resumed))
    else:
        train_folds(config, folds, resume=resumed)


def print_next(trained: Run) -> None:
    """Print the commands that a finished run is for; of several processes, the first one does."""
    from crispseg.training.trainer import is_first_process

    if not is_first_process():
        return
    val = trained.data.dataset("val")
    run = shlex.quote(str(trained.folder))
    image = shlex.quote(str(val.pairs[0].image)) if isinstance(val, FileDataset) else "IMAGE"
    print(
        "next:",
        f"  crispseg predict {run} {image} --out predictions",
        f"  crispseg evaluate {run} --html scores.html",
        f"  crispseg inspect {run} {image} --out inspect.html",
        sep="\n",
        file=sys.stderr,
    )
