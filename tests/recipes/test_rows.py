"""Every row of the papers' tables: its commands parse, and train and score the model that it says."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg.cli.evaluate import Evaluate
from crispseg.cli.main import main
from crispseg.cli.predict import Predict
from crispseg.cli.recipes import Recipes
from crispseg.cli.train import Train
from crispseg.errors import CrispsegError
from crispseg.models.base import SegmentationModel
from crispseg.recipes import PAPERS, PaperRow, find_row, read_rows

TABLES = {
    "sfnet": ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "3", "4", "5a", "5b", "6", "7", "8", "start"],
    "ddsm": ["1", "2", "3", "4"],
    "agln": ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "released"],
    "unept": ["1", "2", "3", "4", "5", "6", "7", "8"],
}
ROWS = [row for paper in PAPERS for row in read_rows(paper) if row.row]
FIRST = {(row.paper, row.table): row for row in reversed(ROWS)}.values()  # of each table
MARKED = [pytest.param(row, marks=[pytest.mark.slow] * (row not in FIRST)) for row in ROWS]
Built = Callable[[str, Callable[[], SegmentationModel]], tuple[str, str, dict[str, Any]]]
COUNTED = [row for row in ROWS if row.parameters or row.multiply_adds]


@pytest.fixture(scope="module")
def built() -> Built:
    """Return a model's name, backbone and options; many rows have the same model, which is built once."""
    known: dict[str, tuple[str, str, dict[str, Any]]] = {}

    def info(key: str, build: Callable[[], SegmentationModel]) -> tuple[str, str, dict[str, Any]]:
        if key not in known:
            with torch.device("meta"):
                model = build().info
            known[key] = (model.name, model.backbone, model.options)
        return known[key]

    return info


def named(row: PaperRow) -> str:
    return f"{row.paper}-{row.name}"


@pytest.mark.parametrize("paper", PAPERS)
def test_all_tables_are_there(paper: str) -> None:
    rows = read_rows(paper)
    assert list(dict.fromkeys(row.table for row in rows)) == TABLES[paper]
    assert len(rows) == {"sfnet": 115, "ddsm": 26, "agln": 69, "unept": 88}[paper]


@pytest.mark.parametrize("row", MARKED, ids=named)
def test_commands_train_and_score_the_row(row: PaperRow, tmp_path: Path, built: Built) -> None:
    weights = tmp_path / "weights.pth"
    weights.touch()
    given = Recipes(root=str(tmp_path), pretrained=str(weights), images=str(tmp_path), out=str(tmp_path / "run"))
    *trainings, score = given.commands(row)
    assert len(trainings) == (2 if row.after else 1)
    for words in trainings:
        config = Train.parsed(words[1:]).config()
        classes, model = row.counted.classes, dataclasses.replace(config.model, pretrained=False)
        # Nothing of the recipe's own model is left, and nothing is missing.
        trained = built(f"{classes} {model}", partial(model.build, classes, auxiliary=False))
        assert trained == built(f"{classes} {row.model}", row.build)
    if score[0] == "predict":
        assert Predict.parsed(score[1:]).options["format"] == row.score.server
    else:
        assert Evaluate.parsed(score[1:]).split == row.score.split


@pytest.mark.slow
@pytest.mark.parametrize("row", COUNTED, ids=named)
def test_counts_are_the_papers_or_the_row_says_why(row: PaperRow) -> None:
    pairs = zip(row.counts(), (row.parameters, row.multiply_adds), strict=True)
    assert row.note or all(abs(here / paper - 1) < 0.02 for here, paper in pairs if paper)


def test_the_row_that_can_be_started_with_published_weights() -> None:
    row = find_row("sfnet", "start.resnet18d")
    assert not row.weight_file
    assert row.counts() == pytest.approx((12.74, 98.1), rel=1e-3)


def test_what_is_no_row() -> None:
    with pytest.raises(CrispsegError, match=r"1b\.ppm"):
        find_row("sfnet", "1b.pp")
    with pytest.raises(CrispsegError, match="sfnet"):
        read_rows("sfnett")


def test_a_row_is_run_only_with_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "unept", "5.baseline"]) == 0
    assert "crispseg train unept/ade20k.yaml" in capsys.readouterr().out
    assert main(["recipes", "unept", "5.baseline", "--run"]) == 2
    assert "ADE20K" in capsys.readouterr().err


def test_seeds_are_run_and_their_mean_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def scored(argv: list[str]) -> int:
        ran.append(argv)
        if argv[0] == "evaluate":
            file = Path(argv[argv.index("--json") + 1])
            file.parent.mkdir()
            seed = int(str(file.parent)[-1])
            file.write_text(json.dumps({"miou": 40.0 + seed, "pixel_accuracy": 80.0}), encoding="utf-8")
        return 0

    monkeypatch.setattr("crispseg.cli.main.main", scored)
    assert Recipes(paper="unept", row="5.spatial", seeds=3, run=True, out=str(tmp_path / "run"))() == 0
    trained = [Train.parsed([*argv[1:], "--data.root", str(tmp_path)]).config() for argv in ran if argv[0] == "train"]
    assert [(config.seed, str(config.out)) for config in trained] == [(n, str(tmp_path / f"run-{n}")) for n in range(3)]
    assert "mean of 3 seeds: mIoU 41.00 ± 1.00, pixel accuracy 80.00 ± 0.00" in capsys.readouterr().out
