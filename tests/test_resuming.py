from __future__ import annotations

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
from training_runs import (
    MODEL,
    files,
    quietly,
    rows,
    tiny,
    untrained,
)

from crispseg import from_pretrained
from crispseg.cli.main import main

FLAGS = [
    *("--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16"),
    *("--data.train=8", "--data.val=4", "--data.test=4", "--data.height=64", "--data.width=96"),
    *("--augment.crop=[64,96]", "--batch_size=4", "--workers=0", "--loggers=[]"),
]


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, epochs = tmp_path / "run", 20
    command = [sys.executable, "-m", "crispseg", "train", *FLAGS, f"--epochs={epochs}", f"--out={folder}"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not ((folder / "checkpoints/last.ckpt").is_file() and len(rows(folder)) >= 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it had ended by itself"
    early = rows(folder)
    reached = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert not (folder / "model").exists()
    assert 0 < len(early) < epochs

    assert main(["train", "--resume", str(folder)]) == 0, capsys.readouterr().err
    table = rows(folder)
    assert [int(row["epoch"]) for row in table] == list(range(1, epochs + 1))
    assert [int(row["step"]) for row in table] == list(range(2, 2 * epochs + 1, 2))
    kept = [row for row in early if int(row["step"]) <= reached]
    assert kept and table[: len(kept)] == kept
    rates = [float(row["lr"]) for row in table]
    assert rates == sorted(rates, reverse=True) and rates[-1] == 0  # one schedule, not two
    best = max(float(row["miou"]) for row in table)
    assert from_pretrained(folder).info.metrics["val_miou"] == pytest.approx(best, abs=0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs, for tests that copy it."""
    return quietly(tiny(tmp_path_factory.mktemp("runs") / "finished")).folder


def test_resuming_a_finished_run_keeps_it(tmp_path: Path) -> None:
    quietly(tiny(tmp_path / "run", epochs=1))
    before = rows(tmp_path / "run")
    assert main(["train", f"--resume={tmp_path / 'run'}"]) == 0
    assert rows(tmp_path / "run") == before
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "3"]) == 0  # and one may go on
    table = rows(tmp_path / "run")
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert table[0] == before[0]


@pytest.mark.parametrize("made", [False, True])
def test_resuming_what_is_no_run_is_refused(made: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    assert main(["train", "--resume", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("crispseg: error:") and str(folder) in line and "give the folder of a run" in line
    assert files(tmp_path) == set()


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path, refuses: Any) -> None:
    with refuses(str(tmp_path), "last.ckpt", "start it again"):
        quietly(tiny(tmp_path), resume=True)


def test_a_resumed_run_needs_no_backbone_weights(tmp_path: Path) -> None:
    weights = tmp_path / "backbone.pth"
    torch.save(untrained(tiny(tmp_path / "run")).backbone.net.model.state_dict(), weights)
    model = dataclasses.replace(MODEL, pretrained=str(weights))
    config = tiny(tmp_path / "run", model=model)
    quietly(config)
    weights.rename(tmp_path / "elsewhere.pth")
    quietly(dataclasses.replace(config, epochs=3), resume=True)
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]


def test_a_run_without_a_finished_epoch_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("epochs: 7\n")
    quietly(tiny(tmp_path / "run"))
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["epochs"] == 2


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        ({"epochs": 1}, ["epochs is 1", "begun epoch 2"]),
        ({"iterations": 9}, ["cannot change iterations"]),
        ({"devices": 2}, ["cannot change devices"]),
        ({"batch_size": 2, "accumulate": 2}, ["cannot change accumulate, batch_size"]),
    ],
)
def test_a_resumed_run_is_the_same_run(
    change: dict[str, Any], phrases: list[str], finished: Path, tmp_path: Path, refuses: Any
) -> None:
    config = tiny(shutil.copytree(finished, tmp_path / "run"))
    before = (tmp_path / "run/config.yaml").read_text()
    with refuses(*phrases):
        quietly(dataclasses.replace(config, **change), resume=True)
    assert (tmp_path / "run/config.yaml").read_text() == before


@pytest.mark.parametrize("row", ["3,half a row", "3,6,0.1", "\n" + "3," * 99])
def test_a_damaged_table_of_metrics_is_named(row: str, finished: Path, tmp_path: Path, refuses: Any) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with (tmp_path / "run/metrics.csv").open("a") as file:
        file.write(row)
    with refuses("metrics.csv is damaged", "remove it"):
        quietly(tiny(tmp_path / "run", epochs=3), resume=True)


def test_a_missing_best_checkpoint_is_named(finished: Path, tmp_path: Path, refuses: Any) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/checkpoints/best.ckpt").unlink()
    with refuses("no checkpoint", "best.ckpt", "restore it"):
        quietly(tiny(tmp_path / "run"), resume=True)
