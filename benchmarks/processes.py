"""Time and peak memory of calls, each way to compute something in a process of its own. Linux only.

Memory is the process's peak resident set during a call less what was resident before it. Memory that the allocator
keeps of freed blocks is given back before each call.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.inference.device import processor_name

PROCESS = Path("/proc/self")

Prepare = Callable[[], Callable[[Any], object]]
"""Makes ready, in its process, the call that is measured."""


class Cost(NamedTuple):
    """Cost of a call."""

    seconds: float
    mebibytes: float


@contextmanager
def process(name: str, prepare: Prepare, threads: int, every: bool = True) -> Iterator[Callable[[Any], Cost]]:
    """A process of its own, and a function that has a call made there and returns its `Cost`.

    Args:
        name: for messages.
        prepare: function of a module that the process can import.
        threads: threads of the process.
        every: measure the memory of each call; otherwise the peak since before `prepare`.

    Raises:
        CrispsegError: by that function, if the process ends or raises one.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    started = context.Process(target=_work, args=(theirs, prepare, threads, every), daemon=True)
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


def _work(pipe: Connection, prepare: Prepare, threads: int, every: bool) -> None:
    torch.set_num_threads(threads)
    try:
        before = forget_peak()
        call = prepare()
        while True:
            asked = pipe.recv()
            if every:
                before = forget_peak()
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
    """MiB of `VmRSS`, resident now, or `VmHWM`, the peak."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> float:
    """Start to measure `VmHWM` again, and return MiB that are resident now."""
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")
    return resident("VmRSS")


def differentiated(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor
) -> Callable[[bool], tuple[Tensor, ...]]:
    """A call that returns the output and, if backward is asked for, the gradients of all inputs."""

    def call(backward: bool) -> tuple[Tensor, ...]:
        for each in inputs:
            each.requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            output = function(*inputs)
        return output, *(torch.autograd.grad(output, inputs, gradient) if backward else ())

    return call


def compare(ways: Mapping[str, Prepare], threads: int, rounds: int) -> None:
    """Print what each way takes and its ratio to the first, without and with backward: median seconds, most MiB.

    All ways run in every round, so that a machine that slows down slows all; the first round does not count.
    """
    for backward in (False, True):
        with ExitStack() as stack:
            calls = {way: stack.enter_context(process(way, prepare, threads)) for way, prepare in ways.items()}
            costs = [[call(backward) for call in calls.values()] for _ in range(rounds + 1)]
        print(f"\n| {'forward and backward' if backward else 'forward'} | seconds | ratio | MiB | ratio |")
        print("| --- | ---: | ---: | ---: | ---: |")
        base: Cost | None = None
        for way, own in zip(ways, zip(*costs, strict=True), strict=True):
            cost = Cost(statistics.median(each.seconds for each in own[1:]), max(each.mebibytes for each in own))
            base = base or cost
            shares = [f"{value / whole:.2f}" if whole > 0 else "–" for value, whole in zip(cost, base, strict=True)]
            print(f"| {way} | {cost.seconds:.3f} | {shares[0]} | {cost.mebibytes:.0f} | {shares[1]} |")


def parser(description: str | None) -> argparse.ArgumentParser:
    """With `--threads`, which all have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=2)
    return made


def machine() -> str:
    """The processor and PyTorch's version."""
    return f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}"
