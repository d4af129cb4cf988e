"""Training steps of networks in turns, so that a machine that slows down slows all: times, and ratios to the first.

python benchmarks/steps.py --networks smp_fpn sfnet_narrow --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time

import gpu
import processes
import torch

from crispseg.cli.allocation import keep_freed_memory
from crispseg.config.plugins import load_plugins


def main() -> None:
    """Measure and print."""
    made = processes.parser(__doc__)
    made.add_argument("--networks", nargs="+", choices=gpu.NETWORKS, default=["smp_fpn", "sfnet_narrow"])
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--size", type=int, nargs=2, default=(320, 416), metavar=("HEIGHT", "WIDTH"))
    made.add_argument("--rounds", type=int, default=16, help="after two that do not count")
    report(made.parse_args())


def report(given: argparse.Namespace) -> None:
    """A row for each network and precision."""
    keep_freed_memory()  # as training does
    load_plugins([str(gpu.PEERS)])
    torch.set_num_threads(given.threads)
    print(f"{processes.machine()}, {given.threads} threads")
    print("| network | dtype | ms a step | of the first, median and span of the turns |")
    print("| --- | --- | ---: | ---: |")
    for dtype in ("bf16", "fp32"):
        size, device = (given.size[0], given.size[1]), torch.device("cpu")
        calls = {name: gpu.step(name, "last", dtype, given.batch, size, device) for name in given.networks}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(2 + given.rounds):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
        first = seconds[given.networks[0]][2:]
        for name, found in seconds.items():
            ratios = [each / beside for each, beside in zip(found[2:], first, strict=True)]
            span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} | {dtype} | {1000 * statistics.median(found[2:]):.0f} | {span} |", flush=True)


if __name__ == "__main__":
    main()
