from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crispseg.benchmarking.timing import Latency, Stopwatch, latencies, take_turns


class Sandglass:
    """A clock that stands still until told how long something took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> float:
        self.now += seconds
        return seconds


def test_all_take_their_turn_in_every_round_and_those_of_the_warm_up_are_left_out() -> None:
    clock, order = Sandglass(), []

    def turn(name: str, seconds: float) -> Callable[[Stopwatch], None]:
        def measure(watch: Stopwatch) -> None:
            order.append(name)
            clock.spend(100)  # before the stage: nobody's time
            assert watch("work", clock.spend, seconds * len(order)) == seconds * len(order)

        return measure

    kept = take_turns([turn("a", 1), turn("b", 10)], range(4), warmup=1, clock=clock)
    assert "".join(order) == "abababab"
    assert [[laps["work"] for laps in rounds] for rounds in kept] == [[3, 5, 7], [40, 60, 80]]


def test_latencies_are_milliseconds() -> None:
    rounds = [{"network": second / 1000, "total": 1.0} for second in range(101)]
    np.random.default_rng(0).shuffle(rounds)
    found = latencies(rounds)
    assert list(found) == ["network", "total"]
    assert found["network"] == pytest.approx((50, 95))
    assert found["total"] == Latency(median=1000, p95=1000)
