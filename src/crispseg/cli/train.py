"""`crispseg train [CONFIG.yaml | FOLDER] [--key value ...]`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crispseg.cli.parsing import parse_training
from crispseg.errors import CrispsegError
from crispseg.training.config import CONFIG, EARLIER

DESCRIPTION = (
    "Train a model. Settings come from flags and, given first, from a YAML file, or from a folder of data whose layout "
    "'crispseg doctor' knows. "
    "'crispseg train --resume RUN' continues a run from its last checkpoint, with its settings and any flags on top. "
    "'crispseg train --folds 5 …' trains five models, each with another fifth of your images as the val split, and "
    "says how much their scores differ."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", nargs="?", const="")
    first.add_argument("--folds")
    chosen, argv = first.parse_known_args(argv)
    folder, recipe = chosen.resume, {}
    if chosen.folds is not None and not chosen.folds.isdecimal():
        raise CrispsegError(f"--folds is {chosen.folds}; give a number, such as 5")
    folds = chosen.folds and int(chosen.folds)
    if folder is not None:
        if not (Path(folder) / CONFIG).is_file():
            raise CrispsegError(f"--resume {folder}: it holds no {CONFIG}; give the folder of a run")
        argv = [str(Path(folder) / CONFIG), *argv, f"--out={folder}"]
        recipe = EARLIER
    config = parse_training(argv, recipe, prog="crispseg train", description=DESCRIPTION, resumed=folder is not None)

    # Lightning takes seconds, which --help and a mistake need not wait for
    from crispseg.training import train, train_folds
    from crispseg.training.folds import SCORES

    if folder is not None and (Path(folder) / SCORES).is_file():
        folds = getattr(config.data, "folds", None)
    if folds is None:
        train(config, resume=folder is not None)
    else:
        train_folds(config, folds, resume=folder is not None)
