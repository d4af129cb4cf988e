"""Cross-validation."""

import csv
import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, error_of
from PIL import Image
from training_runs import DRAWN, FLAGS, files

from crispseg.cli.main import main
from crispseg.errors import Interrupted
from crispseg.inference import Segmenter
from crispseg.io.images import write_image
from crispseg.training import Run, train
from crispseg.training.folds import fold_rows

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Flags for five images of one's own."""
    data = DRAWN.dataset("train")
    for index in range(5):
        write_image(tmp_path / f"images/{index}.png", data[index].image)
        write_image(tmp_path / f"masks/{index}.png", np.minimum(data[index].labels, 2))
    own = [f"--data.images={tmp_path / 'images'}", f"--data.masks={tmp_path / 'masks'}", "--data.classes=[a,b,c]"]
    return ["--data=folder", *own, *(flag for flag in FLAGS if not flag.startswith("--data"))]


def interrupted(config: Any, **options: Any) -> Any:
    if config.data.fold == 2:
        raise Interrupted("in the middle", signal.SIGTERM)
    return train(config, **options)


def test_folds_and_their_spread(
    images: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "folds"
    flags = ["train", *images, "--epochs=1", f"--out={out}", "--folds=2"]

    with monkeypatch.context() as patch:
        patch.setattr("crispseg.training.folds.train", interrupted)
        assert main(flags) == 143
    finished = (out / "fold_1/metrics.csv").read_bytes()
    *_, line = capsys.readouterr().err.splitlines()
    assert "fold 2 of 2" in line and str(out) in line
    assert main(flags) == 2
    assert str(out) in capsys.readouterr().err
    assert main(shlex.split(line.partition(": crispseg ")[2])) == 0
    text = capsys.readouterr().err
    assert (out / "fold_1/metrics.csv").read_bytes() == finished
    scores = json.loads((out / "folds.json").read_text())
    assert list(scores) == ["fold_1", "fold_2"]
    assert re.search(r"mIoU( +│ +[\d.]+){4}", text)
    with (out / "folds.csv").open(newline="") as file:
        rows = [*csv.reader(file)]
    assert [row[0] for row in rows] == ["IoU on val", "mIoU", "a", "b", "c"] and rows[0][3:] == ["fold_1", "fold_2"]
    assert [float(value) for value in rows[1][3:]] == [scores[fold]["miou"] for fold in rows[0][3:]]
    photos = str(tmp_path / "images")
    assert main(["predict", str(out), photos, f"--out={tmp_path / 'predicted'}"]) == 0
    together, *alone = (Segmenter(run)(tmp_path / "images/0.png") for run in (out, out / "fold_1", out / "fold_2"))
    mean = (alone[0].probabilities() + alone[1].probabilities()) / 2
    np.testing.assert_allclose(together.probabilities(), mean, atol=1e-5)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "predicted/0.png")), together.labels)
    capsys.readouterr()
    (out / "folds.json").write_text("[1]")  # scores are those of the runs, and a fold without its run is trained
    shutil.rmtree(out / "fold_1/model")
    assert "fold_1" in error_of(capsys, "predict", str(out), photos, f"--out={tmp_path / 'predicted'}")
    shutil.rmtree(out / "fold_1")
    assert main(["train", "--resume", str(out)]) == 0
    again = json.loads((out / "folds.json").read_text())
    assert [*again["fold_1"]] == ["miou", "a", "b", "c"] and again["fold_2"] == scores["fold_2"]


def test_folds_that_never_began_leave_nothing_in_the_way(images: list[str], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "folds"
    others = [flag for flag in FLAGS if not flag.startswith("--data")]
    for flags in ([*others, "--data=nuclei", "--folds=2"], [*images, "--folds=1"]):
        assert main(["train", *flags, f"--out={out}"]) == 2
        assert not out.exists()
    assert "the data are nuclei" in capsys.readouterr().err
    for _ in range(2):
        assert main(["train", *images, f"--out={out}", "--folds=9"]) == 2
    assert capsys.readouterr().err.count("folds is 9") == 2


def test_folds_neither_replace_a_run_nor_go_on_with_one(
    images: list[str], tiny_run: Run, tmp_path: Path, capsys: Capture
) -> None:
    out = shutil.copytree(tiny_run.folder, tmp_path / "run")
    before = files(out), (out / "config.yaml").read_bytes()
    for flags in ([*images, f"--out={out}"], ["--resume", out]):
        assert str(out) in error_of(capsys, "train", *flags, "--folds=2")
    assert (files(out), (out / "config.yaml").read_bytes()) == before


@pytest.mark.parametrize("name", ["config.yaml", "folds.json"])
def test_what_no_fold_wrote_is_not_replaced(name: str, images: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / name).write_text("mine")
    line = error_of(capsys, "train", *images, f"--out={tmp_path / 'exp'}", "--folds=2")
    assert name in line and "another out" in line
    assert files(tmp_path / "exp") == {name} and (tmp_path / "exp" / name).read_text() == "mine"


def test_the_spread_of_folds() -> None:
    scores = {"fold_1": {"miou": 50.0, "a": 40.0, "b": None}, "fold_2": {"miou": 54.0, "a": 46.0, "b": 62.0}}
    header, *rows = fold_rows(scores)
    assert header == ["IoU on val", "mean", "sd", "fold_1", "fold_2"]
    assert [[name, *(f"{value:.1f}" for value in values)] for name, *values in rows] == [
        ["mIoU", "52.0", "2.8", "50.0", "54.0"],
        ["a", "43.0", "4.2", "40.0", "46.0"],
        ["b", "62.0", "nan", "nan", "62.0"],
    ]
