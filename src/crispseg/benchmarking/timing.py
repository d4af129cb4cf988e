"""Latencies that can be compared: the contenders take turns, on a warm machine, with the device synchronised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

T = TypeVar("T")


class Latency(NamedTuple):
    """Time of one stage, in milliseconds."""

    median: float
    p95: float


class Stopwatch:
    """Calls functions and keeps the seconds that each stage takes in `laps`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, float] = {}

    def __call__(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function and wait until the device has finished."""
        start = self._now()
        result = function(*args)
        self.laps[stage] = self._now() - start
        return result

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def take_turns(
    turns: Sequence[Callable[[Stopwatch], None]],
    rounds: Iterable[int],
    *,
    warmup: int,
    device: torch.device | None = None,
) -> list[dict[str, Latency]]:
    """Measure all contenders in every round, so that a machine that slows down slows all of them.

    Args:
        turns: one measurement of each contender.
        rounds: indices of the rounds, from 0.
        warmup: number of first rounds that do not count.
        device: device that is synchronised; the CPU by default.

    Returns:
        the latency of each stage, one dict a contender.
    """
    kept: list[list[dict[str, float]]] = [[] for _ in turns]
    for index in rounds:
        for turn, laps in zip(turns, kept, strict=True):
            watch = Stopwatch(device or torch.device("cpu"))
            turn(watch)
            if index >= warmup:
                laps.append(watch.laps)
    return [
        {stage: Latency(*np.percentile([1000 * lap[stage] for lap in laps], (50, 95)).tolist()) for stage in laps[0]}
        for laps in kept
    ]
