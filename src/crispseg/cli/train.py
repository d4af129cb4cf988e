"""`crispseg train [CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crispseg.cli.parsing import parse_training, take_flag
from crispseg.errors import CrispsegError
from crispseg.training import train
from crispseg.training.run import CONFIG

DESCRIPTION = (
    "Train a model. Settings come from an optional YAML file, given first, and from flags. "
    "'crispseg train --resume RUN' continues a run from its last checkpoint, with its settings and any flags on top."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    argv = list(argv)
    folder = take_flag(argv, "--resume")
    if folder is not None:
        if not (Path(folder) / CONFIG).is_file():
            raise CrispsegError(f"--resume {folder}: it holds no {CONFIG}; give the folder of a run")
        at = next(index for index, token in enumerate(argv) if token.partition("=")[0] == "--resume")
        del argv[at : at + (1 if "=" in argv[at] else 2)]
        argv = [str(Path(folder) / CONFIG), *argv, f"--out={folder}"]
    train(parse_training(argv, {}, prog="crispseg train", description=DESCRIPTION), resume=folder is not None)
