"""One multi-level deformable attention of UN-EPT on the CPU: crispseg's and that of Hugging Face transformers.

    python benchmarks/deformable_attention.py --threads 2

| way | |
| --- | --- |
| hugging face | `MultiScaleDeformableAttention` of transformers' Deformable DETR, its pure-PyTorch path |
| crispseg | `crispseg.nn.deformable_attention` |

By default: 480×480 pixels, 3 levels at 1/8 (`--stride 16` is a DeiT's), each of whose pixels is a query, 8 heads of 32
channels, 16 points a level. Without the linear layers around it, which are the same in both. Each way runs in a process
of its own, in float32 at batch size 1; the processes take turns. Measured are

- seconds of one call, the median of the rounds, after one that does not count;
- MiB, the process's peak resident set during a call less what was resident before it, without the inputs, but with
  outputs, gradients and freed memory that the allocator holds back: the largest of these rounds;
- MiB used, the same in one more call for which the allocator is told to hold nothing back.

Linux only. First, both ways are compared on a small input.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from crispseg.benchmarking.report import processor_name
from crispseg.errors import CrispsegError
from crispseg.nn import deformable_attention, pixel_centres

HEADS, CHANNELS = 8, 32
DISPLACEMENT = 4.0  # pixels, standard deviation of the points
M_MMAP_THRESHOLD = -3  # of malloc.h: larger blocks are given back to the system when freed
PROCESS = Path("/proc/self")


class Size(NamedTuple):
    """Of a call."""

    side: int
    """Of each level, in its pixels."""
    levels: int
    points: int


Inputs = tuple[Tensor, Tensor, Tensor]
"""Values (1, S, M, d) of all levels, one after another; locations (1, S, M, L, N, 2); weights (1, S, M, L, N)."""


def hugging_face(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    sizes = [(side, side)] * locations.shape[3]
    starts = torch.arange(len(sizes)) * side**2
    attend = MultiScaleDeformableAttention()
    attended: Tensor = attend(values, torch.tensor(sizes), sizes, starts, locations, weights, 64)
    return attended


def ours(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    """As `crispseg.nn.DeformableAttention` calls it."""
    pieces = values.flatten(2).split(side**2, dim=1)  # (1, side², M · d) each
    levels = [piece.mT.unflatten(1, (HEADS, -1)).unflatten(3, (side, side)) for piece in pieces]
    return deformable_attention(levels, locations, weights)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {"hugging face": hugging_face, "crispseg": ours}


def make_inputs(size: Size, dtype: torch.dtype = torch.float32) -> tuple[Inputs, Tensor]:
    """Random inputs, with points around their query, and a gradient of the output."""
    side, levels, points = size
    generator = torch.Generator().manual_seed(0)
    queries = levels * side**2
    values = torch.randn(1, queries, HEADS, CHANNELS, generator=generator, dtype=dtype)
    offsets = torch.randn(1, queries, HEADS, levels, points, 2, generator=generator, dtype=dtype)
    centres = pixel_centres((side, side)).to(dtype).repeat(levels, 1)
    locations = centres[:, None, None, None] + offsets * (DISPLACEMENT / side)
    weights = torch.randn(1, queries, HEADS, levels * points, generator=generator, dtype=dtype).softmax(-1)
    gradient = torch.randn(1, queries, HEADS * CHANNELS, generator=generator, dtype=dtype)
    return (values, locations, weights.unflatten(-1, (levels, points))), gradient


def require_gradients(inputs: Inputs, required: bool = True) -> Inputs:
    for each in inputs:
        each.requires_grad_(required)
    return inputs


def call(way: str, inputs: Inputs, side: int, gradient: Tensor | None) -> tuple[Tensor, ...]:
    """The output and, where that has a gradient, those of all inputs."""
    if gradient is None:
        with torch.no_grad():
            return (WAYS[way](*inputs, side),)
    output = WAYS[way](*inputs, side)
    return output, *torch.autograd.grad(output, inputs, gradient)


def largest_difference() -> float:
    """Of outputs and gradients, in float64 on a small input.

    Raises:
        AssertionError: the ways compute different things.
    """
    size = Size(7, 3, 4)
    inputs, gradient = make_inputs(size, torch.float64)
    theirs, mine = (call(way, require_gradients(inputs), size.side, gradient) for way in WAYS)
    largest = 0.0
    for result, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)
        largest = max(largest, float((result.detach() - wanted.detach()).abs().max()))
    return largest


class Call(NamedTuple):
    """What a process is asked to do."""

    backward: bool
    hold_back: bool
    """Whether the allocator may keep freed memory, as it does unless told otherwise; once False, always False."""


class Cost(NamedTuple):
    """Of a call, or of several; the memory is beyond the inputs."""

    seconds: float
    mebibytes: float
    used: float = math.nan
    """MiB where the allocator holds nothing back."""


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


def work(pipe: Connection, way: str, size: Size, threads: int) -> None:
    """In a process of its own: for each `Call` from the pipe, its `Cost`."""
    torch.set_num_threads(threads)
    inputs, gradient = make_inputs(Size(4, size.levels, size.points))
    call(way, inputs, 4, None)  # what a first call loads is loaded by a tiny one
    call(way, require_gradients(inputs), 4, gradient)
    inputs, gradient = make_inputs(size)
    while True:
        try:
            backward, hold_back = pipe.recv()
        except EOFError:
            return
        require_gradients(inputs, backward)
        if not hold_back:
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 * 1024)  # bytes; without it, a limit that grows to 32 MiB
        forget_peak()
        before = resident("VmRSS")
        start = time.perf_counter()
        results = call(way, inputs, size.side, gradient if backward else None)
        seconds = time.perf_counter() - start
        pipe.send(Cost(seconds, resident("VmHWM") - before))
        del results


@contextmanager
def worker(way: str, size: Size, threads: int) -> Iterator[Connection]:
    """A process that does `work`, and a pipe to it."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, way, size, threads), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    try:
        yield pipe
    finally:
        process.terminate()
        process.join()


def measure(size: Size, threads: int, rounds: int) -> dict[bool, dict[str, Cost]]:
    """Both ways, each in its process, in turns: without (False) and with backward (True), the cost of each.

    Raises:
        CrispsegError: a process ended.
    """
    calls = [Call(backward, True) for backward in (False, True) for _ in range(rounds + 1)]
    calls += [Call(False, False), Call(True, False)]
    costs: dict[tuple[str, Call], list[Cost]] = {}
    with ExitStack() as stack:
        pipes = {way: stack.enter_context(worker(way, size, threads)) for way in WAYS}
        for asked in calls:
            for way, pipe in pipes.items():
                try:
                    pipe.send(asked)
                    costs.setdefault((way, asked), []).append(pipe.recv())
                except (EOFError, OSError):
                    raise CrispsegError(
                        f"the process of '{way}' ended, perhaps for want of memory; use a smaller --size"
                    ) from None

    def total(way: str, backward: bool) -> Cost:
        timed, (again,) = costs[way, Call(backward, True)], costs[way, Call(backward, False)]
        seconds = statistics.median(cost.seconds for cost in timed[1:])
        return Cost(seconds, max(cost.mebibytes for cost in timed), again.mebibytes)

    return {backward: {way: total(way, backward) for way in WAYS} for backward in (False, True)}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=5, help="after one that warms up")
    parser.add_argument("--size", type=positive, default=480, help="height and width of the image, pixels")
    parser.add_argument("--stride", type=positive, default=8, help="of all levels")
    parser.add_argument("--levels", type=positive, default=3)
    parser.add_argument("--points", type=positive, default=16, help="on each level")
    given = parser.parse_args(argv)
    try:
        forget_peak()  # before anything else, see that it works
        report(Size(-(-given.size // given.stride), given.levels, given.points), given.threads, given.rounds)
    except CrispsegError as error:
        print(f"deformable_attention.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def ratio(value: float, base: float) -> str:
    """A dash where there is nothing to compare with, as with the memory of a tiny call."""
    return f"{value / base:.2f}" if base > 0 else "–"


def report(size: Size, threads: int, rounds: int) -> None:
    console = Console()
    console.print(f"Outputs and gradients agree within {largest_difference():.0e} in float64 on a small input.")
    console.print(
        f"{size.levels} levels of {size.side}×{size.side}, each pixel a query, {HEADS} heads of {CHANNELS} channels, "
        f"{size.points} points a level, float32, {threads} threads, {rounds} rounds, "
        f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}, transformers {transformers.__version__}",
        soft_wrap=True,
    )
    for backward, costs in measure(size, threads, rounds).items():
        title = "forward and backward" if backward else "forward"
        table = Table("way", "seconds", "ratio", "MiB", "ratio", "MiB used", "ratio", title=title, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for way, cost in costs.items():
            shares = [ratio(value, whole) for value, whole in zip(cost, costs["hugging face"], strict=True)]
            numbers = (f"{cost.seconds:.3f}", f"{cost.mebibytes:.0f}", f"{cost.used:.0f}")
            table.add_row(way, *(cell for pair in zip(numbers, shares, strict=True) for cell in pair))
        console.print(table)


if __name__ == "__main__":
    main()
