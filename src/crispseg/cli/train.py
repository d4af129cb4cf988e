"""`crispseg train [FOLDER | CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from crispseg.cli.parsing import parse_training
from crispseg.errors import CrispsegError
from crispseg.training.config import CONFIG, EARLIER

TAKEN = {
    "--resume": "folder of a run that was stopped, or of folds, to go on with",
    "--folds": "number of models to train, each with another part of the images as the val split",
}
STARTED = {"TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"}
"""One of these is set in processes that torchrun or SLURM started together."""
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
        raise CrispsegError(
            "there are no data; give their folder, as in 'crispseg train photos', or --data scenes for built-in scenes"
        )
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
    if not STARTED & os.environ.keys() or {"-h", "--help"} & {*argv}:
        _train(argv, folder, folds)
        return
    from crispseg.training.processes import Told, joined

    try:
        with joined():
            _train(argv, folder, folds)
    except Told:
        raise SystemExit(2) from None


def _train(argv: Sequence[str], folder: str | None, folds: int | None) -> None:
    resumed, recipe = folder is not None, EARLIER if folder is not None else {}
    with ExitStack() as stack:
        if folder is not None:
            argv = [str(stack.enter_context(_settings(Path(folder)))), *argv, f"--out={folder}"]
        stack.enter_context(_together())
        config = parse_training(
            argv, recipe, prog="crispseg train", description=DESCRIPTION, resumed=resumed, shown=TAKEN
        )

    # Lightning takes seconds, which --help and a mistake need not wait for
    from crispseg.training import train, train_folds
    from crispseg.training.folds import SCORES
    from crispseg.training.processes import agreed

    if folder is not None and agreed(lambda: (Path(folder) / SCORES).is_file()):
        folds = getattr(config.data, "folds", None)
    if folds is None:
        train(config, resume=resumed)
    else:
        train_folds(config, folds, resume=resumed)


def _together() -> AbstractContextManager[None]:
    """Ends all processes that were started together where one of them refuses what it is told."""
    if not STARTED & os.environ.keys():
        return nullcontext()
    from crispseg.training.processes import all_or_none

    return all_or_none()


@contextmanager
def _settings(folder: Path) -> Iterator[Path]:
    """A file with the settings of the run in a folder, which of several machines the first alone may have.

    Raises:
        CrispsegError: there is none.
    """
    file = folder / CONFIG

    def read() -> bytes:
        if not file.is_file():
            raise CrispsegError(f"--resume {folder}: it holds no {CONFIG}; give the folder of a run")
        return file.read_bytes()

    if not STARTED & os.environ.keys():
        read()
        yield file
        return
    from crispseg.training.processes import agreed, is_first_process

    settings = agreed(read)
    if is_first_process():
        yield file
        return
    with tempfile.TemporaryDirectory() as there:
        copy = Path(there) / CONFIG
        copy.write_bytes(settings)
        yield copy
