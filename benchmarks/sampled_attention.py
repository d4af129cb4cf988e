"""The sampled attention of one DDSM on the CPU, written out, in checkpointed strips and as crispseg has it.

    python benchmarks/sampled_attention.py --threads 2

| way | |
| --- | --- |
| naive | samples at all points at once; the modulation scales all that is sampled, as Eq. 1 writes it |
| naive, folded | the same, but the modulation scales the products over channels |
| naive, einsum | the same, with the products as matrix products |
| strips | naive, folded, on 16 rows at a time under torch.utils.checkpoint |
| crispseg | `sampled_dot`, softmax, `sampled_sum`, as crispseg.models.ddsm.Affinity calls them |

Each runs in a process of its own, in float32 at batch size 1; the processes take turns. Measured are

- seconds of one call, the median of the rounds, after one that does not count;
- MiB, the process's peak resident set during a call less what was resident before it, without the inputs, but with
  outputs, gradients and freed memory that the allocator holds back; the largest of all rounds;
- MiB used, the same of one call in further processes, whose allocator holds nothing back.

Linux only. First, all ways are compared on a small input.
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
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crispseg.benchmarking.report import processor_name
from crispseg.errors import CrispsegError
from crispseg.models.ddsm import DynamicSampler
from crispseg.nn import sampled_dot, sampled_sum

ROWS = 16  # of a strip
DISPLACEMENT = 2.0  # pixels, standard deviation of the points' offsets
M_MMAP_THRESHOLD = -3  # of malloc.h: larger blocks are given back to the system when freed
PROCESS = Path("/proc/self")

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Query, key and value, (B, C, H, W) each; grid (B, N, H, W, 2); modulation (B, N, H, W)."""


# The ways ------------------------------------------------------------------------------------------------------------


def naive(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """As the paper writes it: F of Eq. 1 scales all that it samples, (B, C, N, H, W)."""
    keys = sample(key, grid) * modulation[:, None]
    weights = torch.softmax((query[:, :, None] * keys).sum(1), dim=1)
    del keys
    values = sample(value, grid) * modulation[:, None]
    return (weights[:, None] * values).sum(2)


def folded(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """The modulation, one scalar a point, is taken out of the products over channels."""
    weights = torch.softmax((query[:, :, None] * sample(key, grid)).sum(1) * modulation, dim=1)
    return ((weights * modulation)[:, None] * sample(value, grid)).sum(2)


def einsum(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """The same by matrix products, which hold no product of (B, C, N, H, W) values."""
    weights = torch.softmax(torch.einsum("bchw,bcnhw->bnhw", query, sample(key, grid)) * modulation, dim=1)
    return torch.einsum("bnhw,bcnhw->bchw", weights * modulation, sample(value, grid))


def strips(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """`folded` on a few rows at a time; the backward pass computes each strip again."""
    rows = [slice(first, first + ROWS) for first in range(0, query.shape[2], ROWS)]
    parts = ((query[:, :, here], key, value, grid[:, :, here], modulation[:, :, here]) for here in rows)
    return torch.cat([checkpoint(folded, *part, use_reentrant=False) for part in parts], dim=2)


def ours(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """What `crispseg.models.ddsm.Affinity` does with what its sampler found."""
    weights = torch.softmax(sampled_dot(query, key, grid) * modulation, dim=1)
    return sampled_sum(weights * modulation, value, grid)


def sample(source: Tensor, grid: Tensor) -> Tensor:
    """`source` (B, C, h, w) at all points of `grid` (B, N, H, W, 2) → (B, C, N, H, W)."""
    sampled = F.grid_sample(source, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.unflatten(sampled, 2, grid.shape[1:3])


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "naive": naive,
    "naive, folded": folded,
    "naive, einsum": einsum,
    "strips": strips,
    "crispseg": ours,
}
NAIVE = [name for name in WAYS if name.startswith("naive")]


def make_inputs(channels: int, height: int, width: int, points: int, dtype: torch.dtype) -> tuple[Inputs, Tensor]:
    """Random inputs, with points displaced around their grid, and a gradient of the output.

    Raises:
        CrispsegError: `points` is no odd square.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value, gradient = (
        torch.randn(1, channels, height, width, generator=generator, dtype=dtype) for _ in range(4)
    )
    sampler = DynamicSampler(channels, points).to(dtype)
    nn.init.normal_(sampler.predict.weight, std=DISPLACEMENT / math.sqrt(channels), generator=generator)
    with torch.no_grad():
        grid, modulation = sampler(key)
    return (query, key, value, grid, modulation), gradient


def require_gradients(inputs: Inputs, required: bool = True) -> Inputs:
    for each in inputs:
        each.requires_grad_(required)
    return inputs


def call(way: str, inputs: Inputs, gradient: Tensor | None) -> tuple[Tensor, ...]:
    """The output and, where that has a gradient, those of all inputs."""
    if gradient is None:
        with torch.no_grad():
            return (WAYS[way](*inputs),)
    output = WAYS[way](*inputs)
    return output, *torch.autograd.grad(output, inputs, gradient)


def largest_difference(points: int) -> float:
    """Of outputs and gradients from those of `naive`, in float64 on an input of several strips.

    Raises:
        AssertionError: a way computes something else.
        CrispsegError: `points` is no odd square.
    """
    inputs, gradient = make_inputs(4, 2 * ROWS + 3, 9, points, torch.float64)
    expected = call("naive", require_gradients(inputs), gradient)
    largest = 0.0
    for way in WAYS:
        for result, wanted in zip(call(way, inputs, gradient), expected, strict=True):
            result, wanted = result.detach(), wanted.detach()
            torch.testing.assert_close(result, wanted, msg=lambda text, way=way: f"{way}: {text}")
            largest = max(largest, float((result - wanted).abs().max()))
    return largest


# Measuring -----------------------------------------------------------------------------------------------------------


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


def work(pipe: Connection, way: str, size: tuple[int, int, int], threads: int, hold_back: bool) -> None:
    """In a process of its own: for each message, a call, without backward (False) or with it, and its `Cost`."""
    torch.set_num_threads(threads)
    if not hold_back:  # from the start: what the allocator has kept once, it uses and keeps again
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 * 1024)  # bytes; by default a limit that grows to 32 MiB
    channels, side, points = size
    inputs, gradient = make_inputs(channels, 8, 8, points, torch.float32)
    call(way, inputs, None)  # what a first call loads is loaded by a tiny one
    call(way, require_gradients(inputs), gradient)
    inputs, gradient = make_inputs(channels, side, side, points, torch.float32)
    while True:
        try:
            backward = pipe.recv()
        except EOFError:
            return
        require_gradients(inputs, backward)
        forget_peak()
        before = resident("VmRSS")
        start = time.perf_counter()
        results = call(way, inputs, gradient if backward else None)
        seconds = time.perf_counter() - start
        pipe.send(Cost(seconds, resident("VmHWM") - before))
        del results


def measure(size: tuple[int, int, int], threads: int, rounds: int) -> dict[bool, dict[str, Cost]]:
    """Without (False) and with backward (True), the cost of each way.

    Args:
        size: channels, height and width, points.
        threads: of each process.
        rounds: that count.

    Raises:
        CrispsegError: a process ended.
    """
    timed = take_turns(size, threads, rounds + 1, hold_back=True)
    used = take_turns(size, threads, 1, hold_back=False)

    def total(way: str, backward: bool) -> Cost:
        calls, (again,) = timed[way, backward], used[way, backward]
        seconds = statistics.median(each.seconds for each in calls[1:])
        return Cost(seconds, max(each.mebibytes for each in calls), again.mebibytes)

    return {backward: {way: total(way, backward) for way in WAYS} for backward in (False, True)}


def take_turns(
    size: tuple[int, int, int], threads: int, rounds: int, hold_back: bool
) -> dict[tuple[str, bool], list[Cost]]:
    """Each way in its process, and all of them in every round, so that a machine that slows down slows all.

    Args:
        size, threads: as for `measure`.
        rounds: without backward, and then with it.
        hold_back: whether the allocator may keep freed memory, as it does unless told otherwise.

    Returns:
        The cost of each call, by way and backward.

    Raises:
        CrispsegError: a process ended.
    """
    costs: dict[tuple[str, bool], list[Cost]] = {(way, backward): [] for way in WAYS for backward in (False, True)}
    with ExitStack() as stack:
        pipes = {way: stack.enter_context(worker(way, size, threads, hold_back)) for way in WAYS}
        for backward in [False] * rounds + [True] * rounds:
            for way, pipe in pipes.items():
                try:
                    pipe.send(backward)
                    costs[way, backward].append(pipe.recv())
                except (EOFError, OSError):
                    raise CrispsegError(
                        f"the process of '{way}' ended, perhaps for want of memory; use a --size below {size[1]}"
                    ) from None
    return costs


@contextmanager
def worker(way: str, size: tuple[int, int, int], threads: int, hold_back: bool) -> Iterator[Connection]:
    """A process that does `work`, and a pipe to it."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, way, size, threads, hold_back), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    try:
        yield pipe
    finally:
        process.terminate()
        process.join()


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=5, help="after one that warms up")
    parser.add_argument("--channels", type=positive, default=64)
    parser.add_argument("--size", type=positive, default=256, help="height and width")
    parser.add_argument("--points", type=positive, default=25, help="that each pixel samples, an odd square")
    given = parser.parse_args(argv)
    try:
        report(given.channels, given.size, given.points, given.threads, given.rounds)
    except CrispsegError as error:
        print(f"sampled_attention.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def report(channels: int, side: int, points: int, threads: int, rounds: int) -> None:
    forget_peak()  # before anything else, see that it works
    console = Console()
    difference = largest_difference(points)
    console.print(
        f"Outputs and gradients of all ways agree within {difference:.0e} in float64 on a small input.", soft_wrap=True
    )
    console.print(
        f"{channels} channels, {side}×{side}, {points} points, float32, {threads} threads, {rounds} rounds, "
        f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}",
        soft_wrap=True,
    )
    for backward, costs in measure((channels, side, points), threads, rounds).items():
        title = "forward and backward" if backward else "forward"
        base, mine = costs["naive"], costs["crispseg"]
        table = Table(
            "way", "seconds", "/ naive", "MiB", "/ naive", "MiB used", "/ naive", title=title, title_justify="left"
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for way, cost in costs.items():
            shares = [ratio(value, whole) for value, whole in zip(cost, base, strict=True)]
            numbers = (f"{cost.seconds:.3f}", f"{cost.mebibytes:.0f}", f"{cost.used:.0f}")
            table.add_row(way, *(cell for pair in zip(numbers, shares, strict=True) for cell in pair))
        console.print(table)
        best = Cost(*(min(values) for values in zip(*(costs[way] for way in NAIVE), strict=True)))
        time_share, share, used_share = (ratio(value, least) for value, least in zip(mine, best, strict=True))
        console.print(
            f"crispseg: {time_share} of the time of the fastest naive way; of the leanest one's memory {share}, "
            f"used {used_share}\n",
            soft_wrap=True,
        )


def ratio(value: float, base: float) -> str:
    """A dash where there is nothing to compare with, as with the memory of a tiny call."""
    return f"{value / base:.2f}" if base > 0 else "–"


if __name__ == "__main__":
    main()
