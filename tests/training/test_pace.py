"""Runs whose length is a time, and how long a run still takes."""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn
from training_runs import quietly, rows, tiny

from crispseg.training.callbacks import WarmedAverage
from crispseg.training.pace import NEVER, Budget, Pace, in_words


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def minutes_run(seconds: float, step: float, evaluation: float, accumulate: int = 1) -> list[tuple[float, float]]:
    """When the evaluations of a run began and ended, by a clock that only steps and evaluations move."""
    clock = Clock()
    pace = Pace(1, None, now=clock)
    said = io.StringIO()
    budget = Budget(seconds, clock, pace, Console(file=said))
    pace.estimated = evaluation
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(broadcast=lambda value: value),
        should_stop=False,
        is_last_batch=False,
        sanity_checking=False,
        val_check_batch=NEVER,
        global_step=0,
        accumulate_grad_batches=accumulate,
    )
    told: Any = None  # the module, which neither needs
    for each in (pace, budget):
        each.on_train_start(trainer, told)
    assert ("more minutes" in said.getvalue()) == (evaluation > 0.25 * seconds)
    evaluations = []
    batch = 0
    while not trainer.should_stop:
        pace.on_train_batch_start(trainer, told)
        clock.time += step / accumulate
        trainer.global_step += (batch + 1) % accumulate == 0
        pace.on_train_batch_end(trainer, told)
        budget.on_train_batch_end(trainer, told, None, None, batch)
        batch += 1
        if trainer.should_stop or trainer.val_check_batch == 1:
            assert batch % accumulate == 0, "gradients were being accumulated"
            began = clock.time
            pace.on_validation_start(trainer, told)
            clock.time += evaluation
            budget.on_validation_end(trainer, told)
            evaluations.append((began, clock.time))
    return evaluations


@given(st.floats(10, 4000), st.floats(0.01, 5), st.floats(0.001, 400), st.integers(1, 3))
def test_a_run_ends_in_time_and_evaluates_a_tenth_of_it(
    seconds: float, step: float, evaluation: float, accumulate: int
) -> None:
    assume(seconds / step < 3000)
    evaluations = minutes_run(seconds, step, evaluation, accumulate)
    end = evaluations[-1][1]
    if 0.9 * seconds > evaluation + 3 * step:
        assert seconds - 2 * step - 1e-6 <= end <= seconds + 1e-6
    assert len(evaluations) <= 10
    assert evaluation * len(evaluations) <= max(0.1 * seconds, evaluation) + 1e-6
    if evaluation < 0.01 * seconds and step < 0.01 * seconds:
        assert len(evaluations) >= 9
        assert evaluations[0][0] < 0.08 * seconds
        gaps = [after[0] - before[0] for before, after in itertools.pairwise(evaluations)]
        assert max(gaps) < 0.16 * seconds


@given(
    epochs=st.integers(1, 40),
    batches=st.integers(1, 60),
    val_every=st.integers(1, 7),
    step=st.floats(0.01, 3),
    evaluation=st.floats(0, 60),
    slow=st.floats(1, 20),
    sides=st.lists(st.integers(32, 4000), min_size=2, max_size=9),
    uneven=st.lists(st.floats(0.9, 1.1), min_size=7, max_size=7),
)
def test_the_time_left_is_right_after_a_tenth(
    epochs: int,
    batches: int,
    val_every: int,
    step: float,
    evaluation: float,
    slow: float,
    sides: list[int],
    uneven: list[float],
) -> None:
    """Steps vary by 10 % either way, and the first one takes up to 20 times as long; val images vary in size."""
    steps, between = epochs * batches, val_every * batches
    assume(steps >= 20)
    clock = Clock()
    pixels = sum(side * side for side in sides)
    pace = Pace(pixels, steps, between, clock)
    module: Any = None
    trainer: Any = SimpleNamespace(sanity_checking=True, global_step=0)
    pace.on_sanity_check_start(trainer, module)
    for side, times in zip(sides, (slow, 1), strict=False):
        clock.time += times * evaluation * side * side / pixels
        pace.on_validation_batch_end(trainer, module, None, (torch.empty(1, 3, side, side, device="meta"), None), 0)
    trainer.sanity_checking = False
    left: list[tuple[float, float]] = []  # when, and what was left
    clock.time = 0.0
    pace.on_train_start(trainer, module)
    for number in range(1, steps + 1):
        pace.on_train_batch_start(trainer, module)
        clock.time += step * uneven[number % 7] * (slow if number == 1 else 1)
        trainer.global_step = number
        pace.on_train_batch_end(trainer, module)
        if number % between == 0 or number == steps:
            pace.on_validation_start(trainer, module)
            clock.time += evaluation
            pace.on_validation_end(trainer, module)  # before the first one is over, it counts as it was
        if (now := pace.left()) is not None:
            left.append((clock.time, now))
    for when, found in left:
        if when > 0.1 * clock.time:
            assert found == pytest.approx(clock.time - when, rel=0.2, abs=2 * step)


def test_waiting_for_data_is_measured() -> None:
    clock = Clock()
    pace = Pace(1, 10, now=clock)
    trainer: Any = SimpleNamespace(sanity_checking=False, global_step=0)
    module: Any = None
    pace.on_train_start(trainer, module)
    for number in range(1, 6):
        clock.time += 1
        pace.on_train_batch_start(trainer, module)
        clock.time += 3
        trainer.global_step = number
        pace.on_train_batch_end(trainer, module)
    assert (pace.waiting, pace.a_step) == (0.25, 4)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (3599.6, "1 h 00 min"),
        (7490, "2 h 05 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_an_average_begins_with_a_low_decay(decay: float) -> None:
    module = nn.Linear(1, 1, bias=False)
    callback = WarmedAverage(decay)
    callback.setup(SimpleNamespace(), SimpleNamespace(device="cpu"), "validate")  # type: ignore[arg-type]
    average = torch.optim.swa_utils.AveragedModel(module, use_buffers=True, **callback._kwargs)
    expected = 0.0
    for updates in range(30):
        with torch.no_grad():
            module.weight.fill_(updates**2)
        average.update_parameters(module)
        kept = min(decay, (1 + updates) / (10 + updates)) if updates else 0.0
        expected = kept * expected + (1 - kept) * updates**2
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_run_of_a_given_time(tmp_path: Path) -> None:
    budget = 3.0
    config = tiny(tmp_path / "run", minutes=budget / 60, schedule="cosine", epochs=None, val_every=99)
    finished = quietly(config)
    table = rows(finished.folder)
    assert len(table) >= 2, "val_every does not count"
    assert float(table[-1]["seconds"]) < 2 * budget
    assert float(table[-1]["lr"]) < float(table[0]["lr"])
    assert (tmp_path / "run/model/model.safetensors").is_file()
    before = rows(finished.folder)
    assert rows(quietly(config, resume=True).folder) == before, "it was at its end"
    longer = dataclasses.replace(config, minutes=(budget + 2) / 60)
    after = rows(quietly(longer, resume=True).folder)
    assert after[: len(before)] == before and len(after) > len(before) + 1
    assert float(before[-1]["seconds"]) < float(after[-1]["seconds"]) < 2 * (budget + 2)
