"""Taking times so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch

T = TypeVar("T")

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment."""

Laps: TypeAlias = dict[str, float]
"""Seconds that each stage took."""


class Stopwatch:
    """Calls functions, and notes in `laps` how long each took."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.laps: Laps = {}

    def __call__(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        start = self.clock()
        result = function(*args)
        self.laps[stage] = self.clock() - start
        return result


Turn: TypeAlias = Callable[[Stopwatch], None]
"""One measurement of one contender."""


class Latency(NamedTuple):
    """Times over all rounds, in milliseconds."""

    median: float
    p95: float
    """95 of 100 rounds took no longer."""


def take_turns(turns: Sequence[Turn], rounds: Iterable[int], *, warmup: int, clock: Clock) -> list[list[Laps]]:
    """Measure all contenders in every round, so that a machine that slows down slows all of them.

    Args:
        turns: one a contender.
        rounds: their indices, from 0.
        warmup: so many of the first are run, but not kept.
        clock: tells the time.

    Returns:
        for each contender, the laps of each kept round.
    """
    kept: list[list[Laps]] = [[] for _ in turns]
    for index in rounds:
        for turn, laps in zip(turns, kept, strict=True):
            watch = Stopwatch(clock)
            turn(watch)
            if index >= warmup:
                laps.append(watch.laps)
    return kept


def latencies(rounds: Sequence[Laps]) -> dict[str, Latency]:
    """Median and 95th percentile of each stage."""
    stages = {stage: [1000 * laps[stage] for laps in rounds] for stage in rounds[0]}
    return {
        stage: Latency(*(float(value) for value in np.percentile(taken, (50, 95)))) for stage, taken in stages.items()
    }


def wall_clock(device: torch.device) -> Clock:
    """Wall-clock time at which the device has done all that was asked of it."""

    def clock() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return clock
