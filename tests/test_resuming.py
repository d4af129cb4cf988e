from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_runs import MODEL, SCENES, files, quietly, rows, tiny, without_time

import crispseg
from crispseg.cli.main import main
from crispseg.cli.parsing import parse_training
from crispseg.training import ModelConfig, Run, TrainConfig
from crispseg.training.config import config_to_dict
from crispseg.training.resuming import check_folder
from crispseg.training.run import starting_model


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> TrainConfig:
    """The configuration of a copy of a finished run of two epochs."""
    return tiny(Path(shutil.copytree(tiny_run.folder, tmp_path / "run")))


def test_resuming_a_finished_run_keeps_it_and_one_may_go_on(copied: TrainConfig) -> None:
    before = rows(copied.out)
    assert main(["train", f"--resume={copied.out}"]) == 0
    assert rows(copied.out) == before
    (copied.out / "metrics.csv").write_text("damaged")  # it is written anew from the checkpoint
    assert main(["train", "--resume", str(copied.out), "--epochs", "3"]) == 0
    assert [row["epoch"] for row in rows(copied.out)] == ["1", "2", "3"]
    assert rows(copied.out)[:2] == before
    assert float(rows(copied.out)[2]["seconds"]) > float(before[1]["seconds"])


@pytest.mark.parametrize("text", ["a: [", "[1]", "\0", "model: 1\n", "data: {1: 2}\n"])
def test_settings_of_a_run_that_are_damaged(text: str, copied: TrainConfig, refuses: Any) -> None:
    (copied.out / "config.yaml").write_text(text)
    with refuses(str(copied.out / "config.yaml"), "holds no settings of a run", "restore it"):
        check_folder(copied, resume=True)


def test_a_length_that_is_said_replaces_the_recorded_one(
    copied: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied.out / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"epochs": None, "minutes": 0.001}))
    assert main(["train", f"--resume={copied.out}", "--minutes=1", "--epochs=3"]) == 2
    assert "minutes is 1 and epochs 3; give one of them" in capsys.readouterr().err
    assert main(["train", f"--resume={copied.out}", "--epochs=3"]) == 0
    assert [row["epoch"] for row in rows(copied.out)] == ["1", "2", "3"]
    recorded = yaml.safe_load(path.read_text())
    assert (recorded["epochs"], recorded["minutes"]) == (3, None)
    assert main(["train", "--preset=paper", "--minutes=7", "--print_config"]) == 0
    recorded = yaml.safe_load(capsys.readouterr().out)
    assert (recorded["epochs"], recorded["minutes"]) == (None, 7)


def test_an_earlier_run_recorded_epochs_beside_its_minutes(
    copied: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied.out / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"minutes": 9}))
    started: list[TrainConfig] = []
    monkeypatch.setattr("crispseg.training.train", lambda config, **_: started.append(config))
    assert main(["train", f"--resume={copied.out}"]) == 0
    crispseg.train(out=copied.out, resume=True)
    assert [(config.epochs, config.minutes) for config in started] == [(None, 9), (None, 9)]


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


def test_a_resumed_run_needs_no_backbone_weights(tmp_path: Path, refuses: Any) -> None:
    config = tiny(tmp_path, model=dataclasses.replace(MODEL, pretrained=str(tmp_path / "moved.pth")))
    with refuses("moved.pth"):
        starting_model(config, SCENES.label_set())
    starting_model(config, SCENES.label_set(), resume=True)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "pictures"])
def test_what_no_run_wrote_is_not_replaced(name: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / name).write_text("mine")
    with refuses(str(tmp_path / "exp"), f"holds {name}, which no run wrote", "another --out"):
        quietly(tiny(tmp_path / "exp"))
    assert (tmp_path / "exp" / name).read_text() == "mine"


def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path, refuses: Any) -> None:
    with refuses("moved.pth"):
        quietly(tiny(tmp_path / "run", model=dataclasses.replace(MODEL, pretrained=str(tmp_path / "moved.pth"))))
    assert files(tmp_path) == set() and not (tmp_path / "run").exists()


def test_a_run_without_a_finished_epoch_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("epochs: 7\n")
    assert check_folder(tiny(tmp_path / "run"), resume=False) == tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        ({"epochs": 1}, ["epochs is 1", "begun epoch 2"]),
        ({"iterations": 9}, ["cannot change iterations"]),
        ({"batch_size": 2, "accumulate": 2}, ["cannot change accumulate, batch_size"]),
    ],
)
def test_a_resumed_run_is_the_same_run(
    change: dict[str, Any], phrases: list[str], copied: TrainConfig, refuses: Any
) -> None:
    before = (copied.out / "config.yaml").read_text()
    with refuses(*phrases):
        quietly(dataclasses.replace(copied, **change), resume=True)
    assert (copied.out / "config.yaml").read_text() == before


def test_what_is_auto_must_come_out_as_before(copied: TrainConfig, refuses: Any) -> None:
    with refuses("cannot change batch_size"):
        quietly(dataclasses.replace(copied, batch_size="auto"), resume=True)
    quietly(dataclasses.replace(copied, augment=dataclasses.replace(copied.augment, turn="auto")), resume=True)


def test_runs_from_before_there_were_turns_and_repeats_go_on_without(
    copied: TrainConfig, capsys: pytest.CaptureFixture[str], refuses: Any
) -> None:
    path = copied.out / "config.yaml"
    recorded = yaml.safe_load(path.read_text())
    del recorded["augment"]["turn"], recorded["augment"]["repeat"]
    path.write_text(yaml.safe_dump(recorded))
    assert main(["train", f"--resume={copied.out}", "--print_config"]) == 0
    augment = yaml.safe_load(capsys.readouterr().out)["augment"]
    assert (augment["turn"], augment["repeat"]) == (False, 1)
    check_folder(copied, resume=True)
    before = rows(copied.out)
    assert crispseg.train(out=copied.out, resume=True).history[-1]["step"] == int(before[-1]["step"])
    with refuses("cannot change augment"):
        check_folder(dataclasses.replace(copied, augment=dataclasses.replace(copied.augment, turn=True)), resume=True)


def test_a_missing_best_checkpoint_is_named(copied: TrainConfig, tiny_run: Run, refuses: Any) -> None:
    (copied.out / "checkpoints/best.ckpt").unlink()
    with refuses("no checkpoint", "best.ckpt", "restore it"):
        quietly(copied, resume=True)
    assert without_time(copied.out) == without_time(tiny_run.folder)


def test_a_better_evaluation_of_a_resumed_run_is_kept(copied: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose folder is given by a relative path, as people do."""
    monkeypatch.chdir(copied.out.parent)
    best = copied.out / "checkpoints/best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    (state,) = (state for state in checkpoint["callbacks"].values() if "best_model_score" in state)
    state["best_model_score"] = torch.tensor(0.0)  # so that whatever comes is better
    torch.save(checkpoint, best)
    assert main(["train", "--resume", copied.out.name, "--epochs=3"]) == 0
    assert torch.load(best, weights_only=True)["global_step"] == 6


def test_rows_from_before_checkpoints_had_them_are_kept(copied: TrainConfig) -> None:
    last, before = copied.out / "checkpoints/last.ckpt", rows(copied.out)
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["callbacks"]["MetricsFile"]["rows"]
    torch.save(checkpoint, last)
    quietly(dataclasses.replace(copied, epochs=3), resume=True)
    assert rows(copied.out)[:2] == before and len(rows(copied.out)) == 3


def test_settings_that_a_run_is_too_old_to_have_count_as_their_defaults(tmp_path: Path, refuses: Any) -> None:
    model = ModelConfig("sfnet", "test_efficientnet", False, options={"fuse": "add", "width": 16})
    recorded = config_to_dict(tiny(tmp_path, model=model))
    assert recorded["model"]["flow_kernel"] == 3  # an option of the part that `fuse` replaces
    del recorded["model"]["fuse_options"], recorded["model"]["refine"], recorded["augment"]["flip"]
    del recorded["boundary_distance"], recorded["boundary_weights"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(recorded))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    config = parse_training([str(path), "--epochs=3"], {}, prog="", description="")
    assert check_folder(config, resume=True) == tmp_path
    config.model.build(8, auxiliary=True)
    with refuses("cannot change boundary_distance, model"):
        refining = dataclasses.replace(model, refine="boundary")
        check_folder(dataclasses.replace(config, boundary_distance=9, model=refining), resume=True)
