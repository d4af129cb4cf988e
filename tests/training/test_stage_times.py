"""Where the time of training went."""

import pytest
import torch

from crispseg.training.stage_times import StageTimes


@pytest.mark.parametrize(
    ("seconds", "on_cuda", "expected"),
    [
        (
            {"data": 60, "forward": 20, "backward": 20, "evaluation": 100},
            False,
            ["reading 20%, augmenting 10%, forward 10%, backward 10%, evaluation 50%", "evaluation takes 50%: "],
        ),
        (
            {"data": 90, "forward": 4, "backward": 2, "evaluation": 4},
            True,
            ["augmenting 30%, forward and backward 6%,", "reading takes 60%: ", "augmenting takes 30%: "],
        ),
        ({"data": 3, "forward": 1}, False, ["forward 25%, backward 0%"]),  # too short for advice
        ({}, False, ["reading 0%"]),
    ],
)
def test_shares_and_advice(seconds: dict[str, float], on_cuda: bool, expected: list[str]) -> None:
    times = StageTimes()
    times.seconds.update(seconds)
    lines = times.lines(torch.tensor([20.0, 10.0], dtype=torch.float64), on_cuda)
    assert len(lines) == len(expected)
    assert all(phrase in line for phrase, line in zip(expected, lines, strict=True))
