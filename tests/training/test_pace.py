"""Runs whose length is a time, and how long a run still takes."""

import dataclasses
import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Timer
from torch import nn
from training_runs import quietly, rows, tiny

from crispseg.data.loading import Share
from crispseg.training import pace
from crispseg.training.callbacks import WarmedAverage
from crispseg.training.pace import LEAST_IMAGES, NEVER, Pace

IMAGES = 40


class Session:
    """A run without a network, in which a clock moves by steps and evaluations only."""

    def __init__(
        self, patch: pytest.MonkeyPatch, steps: int | None, seconds: float | None, accumulate: int = 1
    ) -> None:
        self.time, self.accumulate, self.batch = 0.0, accumulate, 0
        patch.setattr(time, "monotonic", lambda: self.time)
        timer = Timer()
        self.pace = Pace(timer, steps, seconds)
        self.val = Share(IMAGES, 1)
        self.callbacks: list[Any] = [timer, self.pace]
        self.trainer: Any = SimpleNamespace(
            strategy=SimpleNamespace(broadcast=lambda value: value),
            should_stop=False,
            is_last_batch=False,
            sanity_checking=True,
            val_check_batch=NEVER,
            global_step=0,
            accumulate_grad_batches=accumulate,
            num_val_batches=[IMAGES],
            num_sanity_val_batches=[4],
            val_dataloaders=SimpleNamespace(sampler=self.val),
        )

    def call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.trainer, None, *args)

    def start(self, evaluation: float, warmup: float = 0.0) -> None:
        self.call("on_validation_start")
        for number in range(4):
            self.time += evaluation / IMAGES + (warmup if number == 0 else 0)
            self.call("on_validation_batch_end", None, None, number)
        self.call("on_validation_end")
        self.trainer.sanity_checking = False
        self.call("on_train_start")

    def step(self, seconds: float) -> None:
        self.time += seconds
        self.trainer.global_step += (self.batch + 1) % self.accumulate == 0
        self.call("on_train_batch_end", None, None, self.batch)
        self.batch += 1

    def evaluate(self, seconds: float) -> tuple[float, float]:
        """Evaluate val, of which all images take these seconds."""
        began = self.time
        self.call("on_validation_start")
        self.time += seconds * len(self.val) / IMAGES
        self.call("on_validation_end")
        return began, self.time


@given(st.floats(10, 4000), st.floats(0.01, 5), st.floats(0.001, 400), st.integers(1, 3))
def test_a_run_ends_in_time_and_evaluates_a_tenth_of_it(
    seconds: float, step: float, evaluation: float, accumulate: int
) -> None:
    assume(seconds / step < 3000)
    evaluations = []
    with pytest.MonkeyPatch.context() as patch:
        session = Session(patch, None, seconds, accumulate)
        session.start(evaluation)
        begin = session.time
        while not session.trainer.should_stop:
            session.step(step / accumulate)
            if session.trainer.should_stop or session.trainer.val_check_batch == 1:
                assert session.batch % accumulate == 0, "gradients were being accumulated"
                evaluations.append([when - begin for when in session.evaluate(evaluation)])
    end = evaluations[-1][1]
    evaluation *= len(session.val) / IMAGES
    assert len(session.val) == IMAGES or (len(session.val) == LEAST_IMAGES or evaluation <= 0.11 * seconds)
    if 0.9 * seconds > evaluation + 3 * step:
        assert seconds - 2 * step - 1e-6 <= end <= seconds + 1e-6
    assert len(evaluations) <= 10
    assert evaluation * len(evaluations) <= max(0.1 * seconds, evaluation) + 1e-6
    if evaluation < 0.01 * seconds and step < 0.01 * seconds:
        assert len(evaluations) >= 9
        assert evaluations[0][0] < 0.12 * seconds
        assert max(after[0] - before[0] for before, after in itertools.pairwise(evaluations)) < 0.16 * seconds


@pytest.mark.parametrize(
    ("evaluation", "warmup", "used"), [(9, 3, IMAGES), (9, 60, IMAGES), (16, 1, 25), (400, 1, LEAST_IMAGES)]
)
def test_val_is_sampled_if_all_of_it_takes_too_long(
    evaluation: float, warmup: float, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in which workers start does not count as that of an image."""
    session = Session(monkeypatch, None, seconds=100)
    session.start(evaluation, warmup)
    assert len(session.val) == used
    images = list(session.val)
    assert images[0] == 0 and images[-1] == IMAGES - 1 and images == sorted({*images})
    resumed = Session(monkeypatch, None, seconds=1000)
    resumed.pace.load_state_dict(session.pace.state_dict())
    resumed.call("on_train_start")
    assert list(resumed.val) == images, "scores would not be comparable"


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


@pytest.mark.slow
def test_a_run_of_a_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 3.0
    monkeypatch.setattr(pace, "EVALUATING", 0.5)  # of three seconds, on a busy machine
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
    assert after[: len(before)] == before and len(after) > len(before)
    assert int(after[-1]["step"]) > int(before[-1]["step"]) and float(after[-1]["seconds"]) > budget + 1
    assert float(before[-1]["seconds"]) < float(after[-1]["seconds"]) < 2 * (budget + 2)
