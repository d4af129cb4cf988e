"""Runs that can be repeated bit for bit, also when they are killed on the way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import MODEL, SCENES, equal, quietly, rows, state, tiny, without_time

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.data import Augment, train_transform
from crispseg.data.loading import Shuffled, train_loader
from crispseg.data.randomness import derived_seed, seeded
from crispseg.evaluation import Scores
from crispseg.training import ModelConfig, Run, TrainConfig
from crispseg.training.checkpoints import LastCheckpoint
from crispseg.training.task import SegmentationTask

AUGMENT = Augment(crop=(64, 96), turn=False, photometric=True, repeat=1)
DROPPING = ModelConfig("sfnet", "test_efficientnet", False, options={"width": 8})  # its PPM has dropout


def repeatable(out: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": DROPPING, "augment": AUGMENT, "batch_size": 2, "deterministic": True}
    return tiny(out, **settings | changes)


# Random numbers ----------------------------------------------------------------------------------------------------


@given(st.sets(st.lists(st.integers(0, 2**33), max_size=4).map(tuple), max_size=30))
def test_other_parts_give_another_seed(parts: set[tuple[int, ...]]) -> None:
    seeds = [derived_seed(purpose, *each) for purpose in ("order", "augment") for each in parts]
    assert len(set(seeds)) == 2 * len(parts)
    assert seeds == [derived_seed(purpose, *each) for purpose in ("order", "augment") for each in parts]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_trailing_zero_gives_another_seed() -> None:
    assert len({derived_seed("step", *parts) for parts in ((7, 3), (7, 3, 0), (7, 3, 0, 0), (0, 7, 3))}) == 4


def test_seeding_leaves_the_numbers_outside_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded("test", 1, 2, 3):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with seeded("test", 1, 2, 3):
        assert torch.equal(torch.rand(4), inside)
    with pytest.raises(ZeroDivisionError), seeded("test", 5):
        torch.rand(7)
        raise ZeroDivisionError
    torch.manual_seed(3)
    torch.rand(2)
    assert torch.rand(1) not in inside


# Batches -----------------------------------------------------------------------------------------------------------


def batches(workers: int, epochs: range, **options: Any) -> list[torch.Tensor]:
    transform = train_transform(AUGMENT, (0.5,) * 3, (0.5,) * 3)
    loader = train_loader(SCENES.dataset("train"), transform, 3, workers, seed=7, **options)
    images = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        torch.rand(epoch + workers)  # what else draws numbers does not matter
        images += [torch.cat([image.flatten(1), labels.flatten(1)], 1) for image, labels in loader]
    return images


def test_augmentation_is_the_same_for_any_number_of_workers() -> None:
    expected = batches(0, range(2))
    assert len(expected) == 4
    assert not torch.equal(expected[0], expected[2]), "every epoch is augmented anew"
    assert all(map(torch.equal, batches(2, range(2)), expected))
    assert all(map(torch.equal, batches(0, range(1, 2)), expected[2:])), "an epoch does not depend on the one before"


def test_batches_can_start_within_an_epoch() -> None:
    assert all(map(torch.equal, batches(0, range(1, 3), start=(1, 1)), batches(0, range(1, 3))[1:]))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=50)
def test_processes_share_an_epoch(samples: int, devices: int, epoch: int) -> None:
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(devices):
            patch.setattr("crispseg.data.loading._rank", lambda rank=rank: rank)
            order = Shuffled(samples, devices, seed=5)
            order.set_epoch(epoch)
            shares.append(list(order))
            assert len(shares[-1]) == len(order)
    indices = [index for share in shares for _, index in share]
    assert {at for share in shares for at, _ in share} == {epoch}
    assert len({len(share) for share in shares}) == 1
    if samples >= devices:
        assert len(set(indices)) == len(indices) > samples - devices
    assert set(indices) <= set(range(samples))


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = Shuffled(50, 1, seed)
        order.set_epoch(epoch)
        orders.append([index for _, index in order])
        assert sorted(orders[-1]) == list(range(50))
    assert len({tuple(order) for order in orders}) == 3


# Runs --------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The run ends here."""


def killed(config: TrainConfig, step: int, monkeypatch: pytest.MonkeyPatch, hook: str = "on_train_batch_start") -> None:
    """A run that ends when it comes to a hook at this step."""
    original = getattr(SegmentationTask, hook)

    def kill(task: SegmentationTask, *args: Any) -> None:
        if task.global_step == step:
            raise Killed
        original(task, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SegmentationTask, hook, kill)
        quietly(config)


ALL: dict[str, Any] = {"ema": 0.8, "optimizer": "adamw", "checkpoint_every": 2, "batch_size": 1, "accumulate": 2}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two epochs of four steps that nothing ended."""
    return quietly(repeatable(tmp_path_factory.mktemp("runs") / "plain"))


def test_runs_with_one_seed_are_equal_bit_for_bit(plain: Run, tmp_path: Path) -> None:
    assert not torch.are_deterministic_algorithms_enabled()  # as it was before
    again = quietly(repeatable(tmp_path / "again", workers=1))
    other = quietly(repeatable(tmp_path / "other", seed=4, epochs=1))
    assert equal(state(again.model), state(plain.model))
    assert not equal(state(other.model), state(plain.model))
    assert without_time(again.folder) == without_time(plain.folder)


@pytest.mark.parametrize(("every", "steps"), [(None, [4, 12, 16]), (4, [4, 8, 12, 16])])
def test_short_epochs_do_not_each_write_a_checkpoint(
    every: int | None, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = LastCheckpoint.save

    def noted(self: LastCheckpoint, trainer: Any) -> None:
        saved.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "save", noted)
    quietly(repeatable(tmp_path / "run", epochs=4, val_every=3, checkpoint_every=every))
    assert saved == steps


@pytest.mark.parametrize(("options", "step", "reached"), [({"checkpoint_every": 1}, 1, 1), (ALL, 7, 6)])
def test_a_run_that_ends_within_an_epoch_goes_on_as_if_it_had_not(
    options: dict[str, Any], step: int, reached: int, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plain if options is not ALL else quietly(repeatable(tmp_path / "whole", **options))
    config = repeatable(tmp_path / "killed", **options)
    killed(config, step, monkeypatch)
    assert steps(tmp_path / "killed/checkpoints/last.ckpt") == reached
    resumed = quietly(config, resume=True)
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(tmp_path / "killed") == without_time(whole.folder)


@pytest.mark.parametrize("iterations", [3, 8])
def test_a_run_killed_in_its_last_evaluation_is_evaluated_when_resumed(
    iterations: int, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = repeatable(tmp_path / "killed", iterations=iterations, checkpoint_every=1)
    killed(config, iterations, monkeypatch, "on_validation_start")
    resumed = quietly(config, resume=True)
    whole = plain if iterations == 8 else quietly(repeatable(tmp_path / "whole", iterations=iterations))
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(tmp_path / "killed") == without_time(whole.folder)
    assert rows(tmp_path / "killed")[-1]["step"] == str(iterations)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_evaluations_leave_the_training_as_it_is(ema: float | None, tmp_path: Path) -> None:
    ends = []
    for val_every in (1, 3):
        config = short(tmp_path / str(val_every), epochs=3, val_every=val_every, ema=ema)
        ends.append(torch.load(quietly(config).folder / "checkpoints/last.ckpt", weights_only=True))
    for part in ("state_dict", "current_model_state") if ema else ("state_dict",):
        assert equal(ends[0][part], ends[1][part])


def short(out: Path, **changes: Any) -> TrainConfig:
    """A step an epoch."""
    return repeatable(out, **{"model": MODEL, "batch_size": 8, **changes})


def test_a_run_that_had_stopped_early_stays_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scores, "miou", 10.0)  # never a better one
    config = short(tmp_path / "run", epochs=9, patience=2)
    killed(config, 3, monkeypatch, "on_train_end")
    assert len(rows(tmp_path / "run")) == 3
    quietly(config, resume=True)
    assert len(rows(tmp_path / "run")) == 3 and (tmp_path / "run/model").exists()
    quietly(dataclasses.replace(config, patience=4), resume=True)  # unless it gets more patience
    assert len(rows(tmp_path / "run")) == 5


def test_a_moved_run_keeps_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Scores, "miou", 90.0)
        best = quietly(short(tmp_path / "here", epochs=1))
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setattr(Scores, "miou", 10.0)
    longer = quietly(short(tmp_path / "there", epochs=2), resume=True)
    assert len(rows(tmp_path / "there")) == 2
    assert longer.miou == 90 and equal(state(longer.model), state(best.model))


def test_weights_and_score_of_a_best_evaluation_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, best = (tmp_path / "run/checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    monkeypatch.setattr(Scores, "miou", 10.0)
    quietly(short(tmp_path / "run", epochs=1))
    after_one = last.read_bytes()
    monkeypatch.setattr(Scores, "miou", 90.0)
    two = quietly(short(tmp_path / "run"), resume=True)
    last.write_bytes(after_one)  # as if killed when best.ckpt was written and last.ckpt was not
    assert (steps(last), steps(best)) == (1, 2)
    monkeypatch.setattr(Scores, "miou", 20.0)
    resumed = quietly(short(tmp_path / "run"), resume=True)
    assert resumed.miou == 90 and equal(state(resumed.model), state(two.model))


def test_checkpoints_are_written_beside_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    saved: list[Path] = []
    save = torch.save

    def note(_object: Any, file: Any, *_: Any, **__: Any) -> None:
        saved.append(Path(file.name).parent)
        save(_object, file)

    monkeypatch.setattr(torch, "save", note)
    quietly(short(tmp_path / "run", checkpoint_every=1, epochs=1, batch_size=4))
    assert len(saved) == 3 and set(saved) == {tmp_path / "run/checkpoints"}
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_ends_with_the_same_weights(tmp_path: Path) -> None:
    flags = [
        *("--model=sfnet", "--model.backbone=test_efficientnet", "--model.width=8", "--epochs=3", "--batch_size=2"),
        *("--data.train=24", "--data.val=4", "--data.test=4", "--data.height=64", "--data.width=96"),
        *("--augment.crop=[64,96]", "--workers=1", "--loggers=[]", "--deterministic=true", "--checkpoint_every=3"),
        "--preset=paper",
    ]
    assert main(["train", *flags, f"--out={tmp_path / 'whole'}"]) == 0

    last = tmp_path / "killed/checkpoints/last.ckpt"
    process = subprocess.Popen(
        [sys.executable, "-m", "crispseg", "train", *flags, f"--out={tmp_path / 'killed'}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while steps(last) < 15:  # of 12 an epoch
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it had ended by itself"
    assert steps(last) % 12 != 0 and 0 < len(rows(tmp_path / "killed")) < 3
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0

    assert equal(state(from_pretrained(tmp_path / "killed")), state(from_pretrained(tmp_path / "whole")))
    ends = [torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "killed")]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 36
    assert equal(ends[0]["state_dict"], ends[1]["state_dict"])
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")


def steps(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"]) if checkpoint.is_file() else 0
