"""Time and peak memory of calls, each way to compute something in a process of its own. Linux only.

Memory is the process's peak resident set during a call less what was resident before it: without what the call was
given, with what it returns. The allocator may hold freed blocks back, as it does unless told otherwise, so that the
same code may take more or less of it; where it may not, what is measured is what the code uses.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from crispseg.benchmarking.report import processor_name
from crispseg.errors import CrispsegError

M_MMAP_THRESHOLD = -3  # of malloc.h: larger blocks are given back to the system when freed
PROCESS = Path("/proc/self")

Prepare = Callable[[], Callable[[Any], object]]
"""Makes ready, in its process, the call to be measured; that is told what is asked of it."""


class Cost(NamedTuple):
    """Seconds and memory of a call, or of several."""

    seconds: float
    mebibytes: float
    used: float = math.nan
    """MiB where the allocator holds nothing back."""


# One process ---------------------------------------------------------------------------------------------------------


@contextmanager
def process(
    name: str, prepare: Prepare, threads: int, hold_back: bool, every: bool = True
) -> Iterator[Callable[[Any], Cost]]:
    """A process of its own, and a function that has a call made there and gives its `Cost`.

    Args:
        name: for messages.
        prepare: of a module that the process can import.
        threads: of the process.
        hold_back: whether the allocator may keep freed memory.
        every: the memory of each call, for which what is free is given back before it, which costs the call time; else
            the most there was since before `prepare`.

    Raises:
        CrispsegError: by that function, where the process ended or raised one itself.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    started = context.Process(target=_work, args=(theirs, prepare, threads, hold_back, every), daemon=True)
    started.start()
    theirs.close()  # so that the pipe ends with the process

    def call(asked: Any) -> Cost:
        try:
            pipe.send(asked)
            answer = pipe.recv()
        except (EOFError, OSError):
            raise CrispsegError(
                f"the process of '{name}' ended, perhaps for want of memory; use a smaller size"
            ) from None
        if isinstance(answer, CrispsegError):
            raise answer
        cost: Cost = answer
        return cost

    try:
        yield call
    finally:
        started.terminate()
        started.join()


def _work(pipe: Connection, prepare: Prepare, threads: int, hold_back: bool, every: bool) -> None:
    torch.set_num_threads(threads)
    if not hold_back:  # from the start: what the allocator has kept once, it uses and keeps again
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 * 1024)  # bytes; by default a limit that grows to 32 MiB
    try:
        forget_peak()
        before = resident("VmRSS")
        call = prepare()
        while True:
            asked = pipe.recv()
            if every:
                forget_peak()
                before = resident("VmRSS")
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
    """MiB of `VmRSS`, resident now, or `VmHWM`, the most there was."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """From now on, `VmHWM` is the peak from now on; what the allocator keeps of freed memory is given back first.

    Raises:
        CrispsegError: this system does not offer it.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):
        raise CrispsegError(
            f"{PROCESS / 'clear_refs'} cannot be written, so peak memory cannot be measured here; use Linux with glibc"
        ) from None


# Ways that are compared ----------------------------------------------------------------------------------------------


def differentiated(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor
) -> Callable[[bool], tuple[Tensor, ...]]:
    """A call that gives the output and, if backward is asked for, the gradients of all inputs where it has this one."""

    def call(backward: bool) -> tuple[Tensor, ...]:
        for each in inputs:
            each.requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            output = function(*inputs)
        return output, *(torch.autograd.grad(output, inputs, gradient) if backward else ())

    return call


def measure(ways: Mapping[str, Prepare], threads: int, rounds: int) -> dict[bool, dict[str, Cost]]:
    """Without (False) and with backward (True), which they are asked, the cost of each way.

    Seconds are the median of the rounds, after one that does not count, MiB the most of all of them. MiB used are those
    of one call in further processes, whose allocator holds nothing back.

    Raises:
        CrispsegError: a process ended.
    """
    timed = _take_turns(ways, threads, rounds + 1, hold_back=True)
    used = _take_turns(ways, threads, 1, hold_back=False)

    def total(way: str, backward: bool) -> Cost:
        calls, (again,) = timed[way, backward], used[way, backward]
        seconds = statistics.median(each.seconds for each in calls[1:])
        return Cost(seconds, max(each.mebibytes for each in calls), again.mebibytes)

    return {backward: {way: total(way, backward) for way in ways} for backward in (False, True)}


def _take_turns(
    ways: Mapping[str, Prepare], threads: int, rounds: int, hold_back: bool
) -> dict[tuple[str, bool], list[Cost]]:
    """Rounds without, then with backward; all ways in every round, so that a machine that slows down slows all."""
    costs: dict[tuple[str, bool], list[Cost]] = {(way, backward): [] for way in ways for backward in (False, True)}
    with ExitStack() as stack:
        calls = {way: stack.enter_context(process(way, prepare, threads, hold_back)) for way, prepare in ways.items()}
        for backward in [False] * rounds + [True] * rounds:
            for way, call in calls.items():
                costs[way, backward].append(call(backward))
    return costs


def as_table(costs: Mapping[str, Cost], base: str, backward: bool, ratios: str) -> Table:
    """The cost of each way and what it is over that of the base, in columns of this name."""
    title = "forward and backward" if backward else "forward"
    table = Table("way", "seconds", ratios, "MiB", ratios, "MiB used", ratios, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for way, cost in costs.items():
        shares = [ratio(value, whole) for value, whole in zip(cost, costs[base], strict=True)]
        numbers = (f"{cost.seconds:.3f}", f"{cost.mebibytes:.0f}", f"{cost.used:.0f}")
        table.add_row(way, *(cell for pair in zip(numbers, shares, strict=True) for cell in pair))
    return table


def ratio(value: float, base: float) -> str:
    """A dash where there is nothing to compare with, as with the memory of a tiny call."""
    return f"{value / base:.2f}" if base > 0 else "–"


# The command line ----------------------------------------------------------------------------------------------------


def parser(description: str | None) -> argparse.ArgumentParser:
    """With `--threads`, which all have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=positive, default=2)
    return made


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def run(
    made: argparse.ArgumentParser, argv: Sequence[str] | None, report: Callable[[argparse.Namespace], None]
) -> None:
    """Report on what the command line asks for; a user's mistake is one line."""
    run_given(made, made.parse_args(argv), report)


def run_given(
    made: argparse.ArgumentParser, given: argparse.Namespace, report: Callable[[argparse.Namespace], None]
) -> None:
    """The same, of arguments that were read."""
    try:
        forget_peak()  # before anything else, see that it works
        report(given)
    except CrispsegError as error:
        made.exit(2, f"{made.prog}: error: {error}\n")


def machine() -> str:
    return f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}"
