"""Runs that are told to end by a signal, or that the disk ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import lightning as L

from crispseg.errors import CrispsegError, Interrupted, ended_worker, system_line
from crispseg.models.info import ModelInfo
from crispseg.models.saving import CONFIG_FILE
from crispseg.training.checkpoints import AtomicCheckpoints, EpochCheckpoint, LastCheckpoint
from crispseg.training.processes import is_lost

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """In the block, SIGINT and SIGTERM end the run in `folder` with a line that says what was kept.

    Schedulers and terminals send them to the data workers too, whose death is no error then. A second signal ends the
    process at once.

    Raises:
        CrispsegError: the operating system refused something, such as room for a checkpoint, or ended a data worker;
            with the same line.
        Interrupted: such a signal came, or something else raised KeyboardInterrupt.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        let_workers_end()
        raise KeyboardInterrupt

    def let_workers_end() -> None:
        if before and hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, lambda *_: None)  # PyTorch's raises an error when a data worker ends

    hook = threading.excepthook
    # TensorBoard writes in a thread; an error of the disk there is raised again in this one.
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else hook(args)
    before = {}
    if threading.current_thread() is threading.main_thread():
        watched = (*SIGNALS, signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else SIGNALS
        before = {each: signal.getsignal(each) for each in watched}
        for each in SIGNALS:
            signal.signal(each, stop)
    try:
        try:
            yield
        finally:
            let_workers_end()  # Lightning has put PyTorch's handler back
    except BaseException as error:
        let_workers_end()  # one may have ended just before
        worker = ended_worker(error)
        if isinstance(worker, Interrupted):
            received.append(worker.number)
            for each in SIGNALS if before else ():
                signal.signal(each, signal.SIG_IGN)  # the same signal may be on its way to this process
        if isinstance(error, OSError) and not received and worker is None:
            raise CrispsegError(f"{system_line(error)}{kept(trainer, folder)}") from None
        if is_lost(error):
            line = f"another process of this training ended near step {trainer.global_step}{kept(trainer, folder)}"
            raise CrispsegError(line) from None
        if isinstance(worker, CrispsegError) and not received:
            raise CrispsegError(f"{worker}{kept(trainer, folder)}") from None
        # Lightning makes SystemExit of KeyboardInterrupt.
        if not received and not isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        number = received[0] if received else signal.SIGINT
        raise Interrupted(f"interrupted at step {trainer.global_step}{kept(trainer, folder)}", number) from None
    finally:
        threading.excepthook = hook
        for each, handler in before.items():
            signal.signal(each, handler)


def kept(trainer: L.Trainer, folder: Path) -> str:
    """What there is of a run that is over before its end, and how to go on."""
    best, last = trainer.checkpoint_callbacks
    assert isinstance(best, EpochCheckpoint) and isinstance(last, LastCheckpoint)
    model = ""
    with suppress(CrispsegError):  # the latest one may not have come to be written, or none
        model = f"the best model so far, mIoU {ModelInfo.read(best.model / CONFIG_FILE).metrics['val_miou']:.1f}"
    # Others may have ended between the writing of a checkpoint and the word that it is written.
    files = trainer.strategy.checkpoint_io
    assert isinstance(files, AtomicCheckpoints)
    step = files.written.get(last.path, last.saved)
    if step is None:
        return f"; kept: {model}, in {folder}; start again with another --out" if model else "; start it again"
    parts = f"the checkpoint of step {step}{' and ' if model else ''}{model}"
    return f"; kept: {parts}; go on with: crispseg train --resume {folder}"
