"""What `cli.allocation` brings: training steps where freed memory is kept, and as the C library does by default.

python benchmarks/allocation.py --threads 1

Each way is a process of its own, in turns; medians. Steps of `crisp` in bf16, on 4 crops of 320×416. GNU's C library
only.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from contextlib import ExitStack

import gpu
import processes
import torch

from crispseg.cli.allocation import keep_freed_memory

WAYS = {"as the C library does": False, "freed memory is kept": True}


def main() -> None:
    """Measure and print."""
    made = processes.parser(__doc__)
    made.add_argument("--steps", type=processes.positive, default=20, help="each turn")
    made.add_argument("--rounds", type=processes.positive, default=5)
    processes.run(made, None, report)


def steps(keep: bool, count: int) -> Callable[[object], None]:
    """What is measured, in its process."""
    if keep:
        keep_freed_memory()
    step = gpu.step("crisp", "last", "bf16", 4, (320, 416), torch.device("cpu"))
    step()

    def call(_asked: object) -> None:
        for _ in range(count):
            step()

    return call


def report(given: argparse.Namespace) -> None:
    """Both ways in turns, and the table."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        calls = {
            way: stack.enter_context(
                processes.process(way, functools.partial(steps, keep, given.steps), given.threads, hold_back=True)
            )
            for way, keep in WAYS.items()
        }
        for _ in range(given.rounds):
            for way, call in calls.items():
                seconds[way].append(call(None).seconds / given.steps)
    print(f"{processes.machine()}, {given.threads} threads")
    print("| freed memory | seconds a step |")
    print("| --- | ---: |")
    for way, found in seconds.items():
        print(f"| {way} | {statistics.median(found):.3f} |")
    base, kept = seconds.values()
    ratios = [each / beside for each, beside in zip(kept, base, strict=True)]
    print(f"| ratio, {min(ratios):.2f} to {max(ratios):.2f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
