import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Capture, error_of, hints, output_of
from drawn import as_flags, drawn
from training_runs import FLAGS, files

import crispseg
from crispseg.cli.train import Train
from crispseg.data import CamVid, Folder, Nuclei
from crispseg.training import TrainConfig
from crispseg.training.config import config_to_dict
from crispseg.training.settings import PAPER

OWN = ("--data.images=photos", "--data.masks=masks")
"""Data that need not be there yet."""


def parse(*argv: object, **recipe: Any) -> TrainConfig:
    return Train.parsed([str(word) for word in argv]).config(recipe)


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_the_installed_command_and_the_module_are_one(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """What `python -m crispseg` does, without a second import of everything."""
    monkeypatch.setattr(sys, "argv", ["crispseg", "trian"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("crispseg", run_name="__main__")
    captured = capsys.readouterr()
    assert (exit.value.code, captured.out) == (2, "")
    assert captured.err == "crispseg: error: unknown command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize(
    ("argv", "phrases"),
    [
        (["train"], ["--data is missing", "folder"]),
        (["train", "nothing", "--minutes", "1"], ["nothing is missing", "folder"]),
        (["train", *OWN, "--data.image", "x"], ["--data.image ", "did you mean 'data.images'"]),
        (["evaluate", "crisp"], ["crisp", "untrained"]),
        (["export", "nuclei", "--out", "mine.bin"], ["--out is mine.bin", ".onnx"]),
        (["train", *OWN, "--folds"], ["--folds ", "a whole number"]),
        (["train", *OWN, "--epochs", "many"], ["--epochs ", "many", "a whole number"]),
        (["train", *OWN, "--optimizer", "adam"], ["--optimizer ", "adam", "adamw"]),
        (["train", *OWN, "--epochs", "0"], ["--epochs ", "0", "greater than 0"]),
        (["train", *OWN, "--boundary_weights.bound", "0"], ["--boundary_weights ", "one of unrefined, "]),
        (["train", "--data", "folder"], ["data.images"]),
        (["train", "--data", "aerial"], ["--data.root "]),
        (["train", ".", "two"], ["'two' is one argument too many"]),
        (["train", "--data", "camvit"], ["camvit", "did you mean 'camvid'"]),
        (["evaluate", "missing"], ["missing is not a model folder"]),
        (["evaluate", "missing", "--splt", "val"], ["--splt ", "did you mean 'split'"]),
        (["predict", "missing", "x.png", "--outt", "out"], ["--outt ", "did you mean 'out'"]),
    ],
)
def test_mistakes_get_one_line(
    argv: list[str], phrases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, *argv)
    for phrase in phrases:
        assert phrase in line
    assert files(tmp_path) == set()


def test_defaults_are_those_of_python() -> None:
    assert config_to_dict(parse("--data=nuclei")) == config_to_dict(TrainConfig(data=Nuclei()))


def test_presets(tmp_path: Path, refuses: Any) -> None:
    paper, own = parse("--preset=paper", "--lr=0.5", *OWN), parse("--lr=0.5", *OWN)
    assert paper != own
    assert paper == parse(PAPER, "--lr=0.5", *OWN)
    path = yaml_file(tmp_path, "preset: paper\nlr: 0.5\ndata: {images: photos, masks: masks}\n")
    assert parse(path) == paper
    assert parse(path, "--preset", "own") == own
    with refuses("papr", "one of own, paper"):
        parse(yaml_file(tmp_path, "preset: papr\n"))


def test_entries_of_a_mapping() -> None:
    config = parse("--loss.dice", "0.5", "--boundary-weights.direction=2", *OWN)
    assert config.losses == {"cross_entropy": 1, "dice": 0.5}
    assert config.boundary_weights == {"unrefined": 1, "refined": 1.5, "boundary": 3, "direction": 2}


def test_options_of_a_part(tmp_path: Path) -> None:
    text = "model: {name: upernet, context: aspp, context_options: {rates: [2, 3]}}\n"
    path, rates = yaml_file(tmp_path, text), "--model.context_options.rates"
    for argv in (["--model=upernet", "--model.context=aspp", rates, "[2, 3]"], [path]):
        assert parse(*argv, *OWN).model.options == {"context": "aspp", "context_options": {"rates": [2, 3]}}
    assert parse(path, f"{rates}=[4]", *OWN).model.options["context_options"] == {"rates": [4]}


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "epochs: 5\nlr: 0.5\nmodel: {name: fpn, width: 32}\n")
    config = parse(path, "--lr", "0.25", "--model.width=8", *OWN, epochs=4, seed=3, model={"backbone": "resnet10t"})
    assert (config.epochs, config.lr, config.seed) == (5, 0.25, 3)
    assert (config.model.name, config.model.backbone) == ("fpn", "resnet10t")
    assert config.model.options["width"] == 8
    assert parse("--epochs", "3", "--epochs=4", "--data=camvid", "--data", "nuclei").epochs == 4  # the last flag wins


def test_other_data_leave_the_keys_of_the_first_behind(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "data: {name: folder, root: x}\nmodel: {name: sfnet, backbone: resnet10t, fuse: add}\n")
    config = parse(path, "--data", "camvid", "--data.root", "here", "--model", "fpn")
    assert config.data == CamVid("here")
    assert parse("--data.images=a", "--data.masks=b").data == Folder("a", "b") == parse("--images=a", "--masks=b").data
    assert parse("--data=camvid", "--data.root=here", "--data.masks=colors").data == CamVid("here", masks="colors")
    assert parse(yaml_file(tmp_path, "data: {name: camvid, root: here}\n"), "--masks=colors").data.name == "camvid"
    assert config.model.backbone == "resnet10t"  # all models share it
    assert config.model.options == {}


def test_init_from_brings_the_model_of_the_run(run: Path, tmp_path: Path, refuses: Any) -> None:
    """Of which flags and the file change what they say."""
    config = parse("--init_from", run, *OWN)
    assert (config.model.name, config.model.backbone) == ("fpn", "test_efficientnet")
    assert config.model.options["width"] == 16
    path = yaml_file(tmp_path, f"init_from: {run / 'model'}\nmodel: {{refine: boundary}}\n")
    changed = parse(path, "--model.context", "ppm", *OWN).model
    assert (changed.backbone, changed.refine, changed.options["width"]) == ("test_efficientnet", "boundary", 16)
    assert changed.options["context"] == "ppm"
    other = parse(path, "--model", "sfnet", *OWN).model  # training will say that its weights do not fit
    assert (other.name, other.backbone) == ("sfnet", "test_efficientnet") and not other.options
    with refuses("missing is not a model folder"):
        parse("--init_from", tmp_path / "missing", *OWN)


def test_the_config_of_a_run_repeats_it(run: Path) -> None:
    assert config_to_dict(parse(run / "config.yaml")) == config_to_dict(parse(*FLAGS, f"--out={run}"))
    assert parse(run / "config.yaml", "--model.width=8").model.options["width"] == 8


def test_evaluate_an_unknown_split(run: Path, capsys: Capture) -> None:
    line = error_of(capsys, "evaluate", run, "--split", "vall", "--workers=0")
    assert "'vall'" in line and "did you mean 'val'" in line
    assert str(run.parent) in error_of(capsys, "evaluate", run.parent)  # no model


def test_evaluate_a_model_without_recorded_data(tmp_path: Path, capsys: Capture) -> None:
    crispseg.create_model("fpn", num_classes=12, backbone="test_efficientnet", width=8).save_pretrained(tmp_path / "m")
    assert "give the data" in error_of(capsys, "evaluate", tmp_path / "m")
    data = as_flags(drawn(val=1, height=64, width=64))
    assert "mIoU" in output_of(capsys, "evaluate", tmp_path / "m", *data, "--workers=0")


def test_the_hint_of_bundled_models_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (step,) = hints(output_of(capsys, "list", "--pretrained"))
    monkeypatch.chdir(tmp_path)
    output_of(capsys, *step)
    assert [*tmp_path.glob("predictions/*_overlay.png")]
