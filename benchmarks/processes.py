"""Time and peak memory of calls, each way in a separate process; Linux only.

Memory is the process's peak resident set so far minus the resident set before the call was prepared.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crispseg.errors import CrispsegError
from crispseg.inference.device import processor_name

PROCESS = Path("/proc/self")

Prepare = Callable[[], Callable[[Any], object]]
"""Function that returns the measured call, in its process."""


class Cost(NamedTuple):
    seconds: float
    mebibytes: float


@contextmanager
def process(name: str, prepare: Prepare, threads: int) -> Iterator[Callable[[Any], Cost]]:
    """Start a process, and yield a function that runs a call there and returns its `Cost`.

    Args:
        name: name in error messages.
        prepare: function of a module that the process can import.
        threads: number of threads of the process.

    Raises:
        CrispsegError: by the yielded function, if the process ends or raises this error.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    started = context.Process(target=_work, args=(theirs, prepare, threads), daemon=True)
    started.start()
    theirs.close()  # so that the pipe ends with the process

    def call(asked: Any) -> Cost:
        try:
            pipe.send(asked)
            answer = pipe.recv()
        except (EOFError, OSError):
            raise CrispsegError(f"the process of '{name}' has ended; use a smaller size if memory ran out") from None
        if isinstance(answer, CrispsegError):
            raise answer
        return Cost(*answer)

    try:
        yield call
    finally:
        started.terminate()
        started.join()


def _work(pipe: Connection, prepare: Prepare, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        before = forget_peak()
        call = prepare()
        while True:
            asked = pipe.recv()
            start = time.perf_counter()
            results = call(asked)
            seconds = time.perf_counter() - start
            pipe.send(Cost(seconds, resident("VmHWM") - before))
            del results
    except EOFError:
        return
    except CrispsegError as error:
        pipe.send(error)


def resident(field: str) -> float:
    """Return MiB of `VmRSS` (resident now) or `VmHWM` (peak)."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> float:
    """Reset `VmHWM`, and return the resident MiB."""
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")
    return resident("VmRSS")


def machine() -> str:
    """Return the processor and PyTorch's version."""
    return f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}"
