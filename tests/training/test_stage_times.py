"""Where the time of training went."""

import pytest
import torch

from crispseg.training.stage_times import StageTimes


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (
            {"data": 60, "forward and backward": 40, "evaluation": 100},
            ["reading 20%, augmenting 10%, forward and backward 20%, evaluation 50%", "evaluation takes 50%: "],
        ),
        (
            {"data": 90, "forward and backward": 6, "evaluation": 4},
            ["augmenting 30%, forward and backward 6%,", "reading takes 60%: ", "augmenting takes 30%: "],
        ),
        ({"data": 3, "forward and backward": 1}, ["forward and backward 25%"]),  # too short for advice
        ({}, ["reading 0%"]),
    ],
)
def test_shares_and_advice(seconds: dict[str, float], expected: list[str]) -> None:
    times = StageTimes()
    times.seconds.update(seconds)
    lines = times.lines(torch.tensor([20.0, 10.0], dtype=torch.float64))
    assert len(lines) == len(expected)
    assert all(phrase in line for phrase, line in zip(expected, lines, strict=True))
