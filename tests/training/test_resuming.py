"""Runs that are repeated, stopped, killed, moved and resumed."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from drawn import as_flags, drawn
from training_runs import DRAWN, MODEL, equal, files, quietly, rows, state, tiny, without_time

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.data import Augment
from crispseg.evaluation import Scores
from crispseg.training import ModelConfig, Run, TrainConfig
from crispseg.training.checkpoints import check_same_run
from crispseg.training.initial_weights import starting_model
from crispseg.training.task import SegmentationTask

pytestmark = pytest.mark.usefixtures("without_pictures")

DROPPING = ModelConfig("sfnet", "test_efficientnet", False, options={"width": 8})  # its PPM has dropout


def repeatable(out: Path, **changes: Any) -> TrainConfig:
    augment = Augment(crop=(64, 96), turn=False, photometric=True, repeat=1)
    settings: dict[str, Any] = {"model": DROPPING, "augment": augment, "batch_size": 2, "deterministic": True}
    return tiny(out, **settings | changes)


def short(out: Path, **changes: Any) -> TrainConfig:
    """A step an epoch."""
    return repeatable(out, **{"model": MODEL, "batch_size": 8, **changes})


def steps(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"]) if checkpoint.is_file() else 0


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


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> TrainConfig:
    """The configuration of a copy of a finished run of two epochs."""
    return tiny(Path(shutil.copytree(tiny_run.folder, tmp_path / "run")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two epochs of four steps that nothing ended."""
    return quietly(repeatable(tmp_path_factory.mktemp("runs") / "plain"))


def test_runs_with_one_seed_are_equal(plain: Run, tmp_path: Path) -> None:
    again = quietly(repeatable(tmp_path / "again", workers=1))
    other = quietly(repeatable(tmp_path / "other", seed=4, epochs=1))
    assert equal(state(again.model), state(plain.model))
    assert not equal(state(other.model), state(plain.model))
    assert without_time(again.folder) == without_time(plain.folder)


ALL: dict[str, Any] = {"ema": 0.8, "optimizer": "adamw", "checkpoint_every": 2, "batch_size": 1, "accumulate": 2}


@pytest.mark.parametrize(
    ("options", "step", "reached"), [pytest.param(ALL, 7, 6, marks=pytest.mark.slow), ({"iterations": 8}, 4, 4)]
)
def test_a_run_that_ends_within_or_after_an_epoch_resumes_as_if_it_had_not(
    options: dict[str, Any], step: int, reached: int, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plain if options is not ALL else quietly(repeatable(tmp_path / "whole", **options))
    config = repeatable(tmp_path / "killed", **options)
    killed(config, step, monkeypatch)
    assert steps(tmp_path / "killed/checkpoints/last.ckpt") == reached
    resumed = quietly(config, resume=True)
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(tmp_path / "killed") == without_time(whole.folder)


@pytest.mark.slow
def test_a_run_killed_in_its_last_evaluation_is_evaluated_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = repeatable(tmp_path / "killed", iterations=3, checkpoint_every=1)
    killed(config, 3, monkeypatch, "on_validation_start")
    resumed = quietly(config, resume=True)
    whole = quietly(repeatable(tmp_path / "whole", iterations=3))
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(tmp_path / "killed") == without_time(whole.folder)
    assert rows(tmp_path / "killed")[-1]["step"] == "3"


def test_evaluations_leave_the_training_as_it_is(tmp_path: Path) -> None:
    ends = []
    for val_every in (1, 3):
        config = short(tmp_path / str(val_every), epochs=3, val_every=val_every, ema=0.5)
        ends.append(torch.load(quietly(config).folder / "checkpoints/last.ckpt", weights_only=True))
    assert all(equal(ends[0][part], ends[1][part]) for part in ("state_dict", "current_model_state"))


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_with_the_same_weights(tmp_path: Path) -> None:
    flags = [
        *("--model=sfnet", "--model.backbone=test_efficientnet", "--model.width=8", "--epochs=3", "--batch_size=2"),
        *as_flags(drawn(train=24, val=4, test=4, height=64, width=96)),
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
    ends = [torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "killed")]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 36
    assert equal(ends[0]["state_dict"], ends[1]["state_dict"])
    assert equal(state(from_pretrained(tmp_path / "killed")), state(from_pretrained(tmp_path / "whole")))
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")


@pytest.mark.slow
def test_weights_and_score_of_a_best_evaluation_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the run is killed between its two checkpoints, and its folder is moved."""
    last, best = (tmp_path / "run/checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    monkeypatch.setattr(Scores, "miou", 10.0)
    quietly(short(tmp_path / "run", epochs=1))
    after_one = last.read_bytes()
    monkeypatch.setattr(Scores, "miou", 90.0)
    two = quietly(short(tmp_path / "run"), resume=True)
    last.write_bytes(after_one)  # as if killed when best.ckpt was written and last.ckpt was not
    assert (steps(last), steps(best)) == (1, 2)
    (tmp_path / "run").rename(tmp_path / "moved")
    for epochs, miou, kept in ((2, 5.0, 90), (3, 20.0, 20)):  # the model is that of the kept score
        monkeypatch.setattr(Scores, "miou", miou)
        run = quietly(short(tmp_path / "moved", epochs=epochs), resume=True)
        assert from_pretrained(run.folder).info.metrics == {"val_miou": kept}
        assert equal(state(run.model), state(two.model)) == (kept == 90)


def test_a_run_that_had_stopped_early_stays_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scores, "miou", 10.0)  # never a better one
    config = short(tmp_path / "run", epochs=9, patience=2)
    killed(config, 3, monkeypatch, "on_train_end")
    assert len(rows(tmp_path / "run")) == 3
    quietly(config, resume=True)
    assert len(rows(tmp_path / "run")) == 3 and (tmp_path / "run/model").exists()
    quietly(dataclasses.replace(config, patience=4), resume=True)  # unless it gets more patience
    assert len(rows(tmp_path / "run")) == 5


def test_a_finished_run_is_kept_and_may_become_longer(copied: TrainConfig) -> None:
    before, path = rows(copied.out), copied.out / "config.yaml"
    assert main(["train", f"--resume={copied.out}"]) == 0
    assert rows(copied.out) == before
    (copied.out / "metrics.csv").write_text("damaged")  # it is written again from the checkpoint
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"epochs": None, "minutes": 0.001}))
    assert main(["train", f"--resume={copied.out}", "--minutes=1", "--epochs=3"]) == 2
    assert main(["train", "--resume", str(copied.out), "--epochs", "3"]) == 0  # a length replaces the recorded one
    assert [row["epoch"] for row in rows(copied.out)] == ["1", "2", "3"]
    assert rows(copied.out)[:2] == before
    assert float(rows(copied.out)[2]["seconds"]) >= float(before[1]["seconds"])
    recorded = yaml.safe_load(path.read_text())
    assert (recorded["epochs"], recorded["minutes"]) == (3, None)


def test_a_resumed_run_needs_no_backbone_weights(tmp_path: Path, refuses: Any) -> None:
    config = tiny(tmp_path / "run", model=dataclasses.replace(MODEL, pretrained=str(tmp_path / "moved.pth")))
    with refuses("moved.pth"):
        quietly(config)
    assert files(tmp_path) == set()  # what is refused leaves nothing
    starting_model(config, DRAWN.label_set(), resume=True)


@pytest.mark.parametrize("name", ["config.yaml", "val.png", "folds.json"])
def test_what_no_run_wrote_is_not_replaced(name: str, tmp_path: Path, refuses: Any) -> None:
    """Nor if another program made a folder of checkpoints."""
    (tmp_path / "exp/checkpoints").mkdir(parents=True)
    (tmp_path / "exp" / name).write_text("mine")
    for resume in (False, True):
        with refuses(str(tmp_path / "exp"), "checkpoints/last.ckpt" if resume else name, "another out"):
            quietly(tiny(tmp_path / "exp"), resume=resume)
    assert files(tmp_path) == {f"exp/{name}"} and (tmp_path / "exp" / name).read_text() == "mine"


def test_a_run_that_ended_before_its_first_checkpoint(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = repeatable(tmp_path / "run")
    killed(config, 2, monkeypatch)
    assert files(config.out) == {"config.yaml", "data.digest", "data.png", "train.txt"}
    assert main(["train", f"--resume={config.out}"]) == 0
    assert "from the beginning" in capsys.readouterr().err
    assert equal(state(from_pretrained(config.out)), state(plain.model))


@pytest.mark.slow
def test_a_damaged_checkpoint_leaves_the_other(copied: TrainConfig, refuses: Any) -> None:
    best, last = (copied.out / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    whole = best.read_bytes()
    best.write_bytes(b"damaged")
    quietly(dataclasses.replace(copied, epochs=3), resume=True)
    best.write_bytes(whole)
    last.write_bytes(b"damaged")
    with refuses(str(last), "remove it and resume"):
        quietly(dataclasses.replace(copied, epochs=4), resume=True)
    last.unlink()
    quietly(dataclasses.replace(copied, epochs=4), resume=True)
    assert rows(copied.out)[-1]["epoch"] == "4"


def test_a_model_without_checkpoints_is_not_trained_over(copied: TrainConfig, refuses: Any) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        (copied.out / "checkpoints" / name).unlink()
    for resume in (False, True):
        with refuses(str(copied.out), "another out"):
            quietly(copied, resume=resume)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"epochs": 1}, "epochs is 1"),
        ({"batch_size": 2, "iterations": 9}, "batch_size × devices × num_nodes, iterations"),
        ({"model": dataclasses.replace(MODEL, refine="boundary"), "boundary_distance": 9}, "boundary_distance, model"),
    ],
)
def test_a_resumed_run_is_the_same_run(change: dict[str, Any], phrase: str, copied: TrainConfig, refuses: Any) -> None:
    before = (copied.out / "config.yaml").read_text()
    with refuses(phrase):
        quietly(dataclasses.replace(copied, **change), resume=True)
    assert (copied.out / "config.yaml").read_text() == before


@pytest.mark.parametrize("key", ["model", "data", "augment", "batch_size", "devices", "num_nodes", "seed"])
def test_settings_that_are_gone_have_their_defaults(key: str, copied: TrainConfig) -> None:
    file = Path(copied.out) / "config.yaml"
    recorded = yaml.safe_load(file.read_text())
    del recorded[key]
    file.write_text(yaml.safe_dump(recorded))
    check_same_run(copied)


def test_a_run_may_be_resumed_by_other_processes_if_a_step_has_as_many_images(tiny_run: Run, refuses: Any) -> None:
    check_same_run(tiny(tiny_run.folder, batch_size=2, devices=2))
    check_same_run(tiny(tiny_run.folder, batch_size=1, devices=2, num_nodes=2))
    with refuses("devices"):
        check_same_run(tiny(tiny_run.folder, devices=2))


def test_data_may_move(tmp_path: Path, refuses: Any) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"
    quietly(short(out, epochs=1, schedule="constant"))
    shutil.copytree(Path(str(DRAWN.root)), moved)
    again = {"data": dataclasses.replace(DRAWN, root=str(moved)), "epochs": 2, "schedule": "constant"}
    assert len(rows(quietly(short(out, **again), resume=True).folder)) == 2
    mask = next((moved / "masks/train").iterdir())
    shutil.copy(next((moved / "masks/val").iterdir()), mask)
    with refuses("cannot change data"):
        third = tmp_path / "third"
        moved.rename(third)
        quietly(short(out, **again | {"data": dataclasses.replace(DRAWN, root=str(third)), "epochs": 3}), resume=True)
