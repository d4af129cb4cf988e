"""What a run says while it goes on, and at its end."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from training_runs import DRAWN, rows, tiny

from crispseg.data import Folder
from crispseg.data.examination import SplitReport
from crispseg.labels import LabelSet
from crispseg.training import TrainConfig, train
from crispseg.training.feedback import advice, class_scores

NAMES = ("background", "nucleus", "border")


def test_a_line_has_the_lowest_classes() -> None:
    assert class_scores(np.array([62.1, np.nan, 0.0]), NAMES, 4) == "background 62.1  border 0.0"
    many = np.arange(30.0)[::-1]
    assert class_scores(many, [f"c{index}" for index in range(30)], 4) == "lowest c29 0.0, c28 1.0, c27 2.0"


def report(split: str, images: int) -> SplitReport:
    quarters = np.zeros((images, 3, 2, 2), int)
    quarters[..., 0, 0] = [800, 196, 4]
    labels = LabelSet(NAMES, ((0, 0, 0), (0, 255, 0), (255, 0, 0)))
    return SplitReport(split, labels, quarters, ignored=0, sizes=((25, 40),) * images)


SOUND: dict[str, Any] = {"steps": range(10, 70, 10), "miou": [50, 60, 65, 66, 66.3, 66.2], "iou": [90.0, 80.0, 70.0]}
SOUND |= {"losses": [1, 0.8, 0.6, 0.5, 0.4, 0.4], "class_weights": None}


def told(**changes: Any) -> list[str]:
    run = SOUND | changes
    config = TrainConfig(Folder("images", "masks"), epochs=50, workers=2, class_weights=run["class_weights"])
    columns = {"step": run["steps"], "miou": run["miou"], "train_loss": run["losses"]}
    rows = [dict(zip(columns, map(str, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return advice(config, report("train", 80), rows, np.array(run["iou"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"miou": [10, 20, 30, 40, 50, 60]}, "train longer.* rose by 20.0"),
        ({"miou": [10, 60, 59, 55, 54, 50]}, "fell by 10.0 after step 20"),
        ({"miou": [10, 60, 59, 55, 54, 50], "losses": [1] * 6}, None),
        ({"iou": [90, 40, 20]}, "class_weights balanced: border has IoU 20.0 and is 0.4 %"),
        ({"iou": [90, 40, 20], "class_weights": "softened"}, "images that contain it: border"),
        ({"iou": [90, 40, 60]}, None),  # the class of a fifth of the pixels is not rare
        ({"steps": [1, 2, 3], "miou": [7, 8, 9], "losses": [1, 1, 1]}, "3 steps"),
    ],
)
def test_advice_follows_from_what_was_measured(changes: dict[str, Any], said: str | None) -> None:
    lines = told(**changes)
    assert re.search(said, lines[0]) if said else not lines


def test_a_run_tells_how_it_goes(tmp_path: Path) -> None:
    said = io.StringIO()
    config = tiny(tmp_path / "run", epochs=4, batch_size=4)
    folder = train(config, console=Console(file=said, width=300)).folder
    text = said.getvalue()
    lines = re.findall(r"(?m)^epoch .*mIoU.*$", text)
    assert len(lines) == 4
    number = r"[\d.]+"
    lowest = rf"mIoU {number}  lowest (\w[\w ]* {number}(, )?){{3}}"
    assert re.fullmatch(rf"epoch 2/4  step 4/8  loss {number}  0:0\d:\d\d left  {lowest}", lines[1])
    with Image.open(folder / "val.png") as picture:
        assert picture.width < 1300
    best = max(rows(folder), key=lambda row: float(row["miou"]))
    end = text[text.index("best mIoU") :]
    score = f"{float(best['miou']):.2f}"
    assert end.startswith(f"best mIoU on val: {score} at step {best['step']}; the model is in {folder}/model\n")
    assert sum(f" {name} " in end for name in DRAWN.label_set().names) >= 10
    assert "to try next: train longer: the run has only 8 steps" in end


def test_bars_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    train(tiny(tmp_path / "run"), console=Console(stderr=True, force_terminal=True, width=200))
    assert "epoch 2/2" in screen.getvalue() and "left" in screen.getvalue()
