"""Runs that a signal, the operating system or another process ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from crispseg.errors import CrispsegError, Interrupted, ended_worker, one_line, system_line
from crispseg.training.checkpoints import LastCheckpoint
from crispseg.training.pace import callback


@contextmanager
def interruptible(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """In the block, SIGINT and SIGTERM end the run in `folder` with a line that says what was kept.

    Raises:
        CrispsegError: the operating system refused something, such as space for a checkpoint, or ended a data worker;
            or one of several processes failed.
        Interrupted: such a signal came.
    """
    try:
        yield
    except SystemExit as stop:  # Lightning raises it for KeyboardInterrupt, whose subclass knows the signal
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        raise _interrupted(trainer, folder, getattr(stop.__context__, "number", number)) from None
    except OSError as error:
        raise CrispsegError(f"{system_line(error)}; {_kept(trainer, folder)}") from None
    except RuntimeError as error:
        worker = ended_worker(error)
        if isinstance(worker, Interrupted):  # the signal came to the workers first
            raise _interrupted(trainer, folder, worker.number) from None
        if worker is None and trainer.world_size == 1:
            raise
        line = worker or f"training failed in process {trainer.global_rank}, or another ended ({one_line(error)})"
        raise CrispsegError(f"{line}; {_kept(trainer, folder)}") from error


def _interrupted(trainer: L.Trainer, folder: Path, number: int) -> Interrupted:
    return Interrupted(f"interrupted at step {trainer.global_step}; {_kept(trainer, folder)}", number)


def _kept(trainer: L.Trainer, folder: Path) -> str:
    """What there is of a run that ends early, and how to go on."""
    last = callback(trainer, LastCheckpoint)
    if last.saved is None and not last.path.is_file():
        return "start it again"
    # Another process may have ended between the writing of a checkpoint and the word that it is written.
    kept = "the last checkpoint" if last.saved is None else f"the checkpoint of step {last.saved}"
    return f"{kept} was kept: resume the run in {folder}"
