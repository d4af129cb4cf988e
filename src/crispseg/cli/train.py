"""`crispseg train [CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crispseg.cli.parsing import parse_training
from crispseg.errors import CrispsegError
from crispseg.training import train
from crispseg.training.run import CONFIG

DESCRIPTION = (
    "Train a model. Settings come from an optional YAML file, given first, and from flags. "
    "'crispseg train --resume RUN' continues a run from its last checkpoint, with its settings and any flags on top."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", nargs="?", const="")
    chosen, argv = first.parse_known_args(argv)
    folder, recipe = chosen.resume, {}
    if folder is not None:
        if not (Path(folder) / CONFIG).is_file():
            raise CrispsegError(f"--resume {folder}: it holds no {CONFIG}; give the folder of a run")
        argv = [str(Path(folder) / CONFIG), *argv, f"--out={folder}"]
        recipe = {"augment": {"turn": False}}  # of a run from before there were turns
    train(parse_training(argv, recipe, prog="crispseg train", description=DESCRIPTION), resume=folder is not None)
