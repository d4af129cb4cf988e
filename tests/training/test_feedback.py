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
from crispseg.data.split_check import SplitReport
from crispseg.evaluation import Scores
from crispseg.labels import LabelSet
from crispseg.training import TrainConfig, train
from crispseg.training.feedback import advice, class_lines, classes_in_short

NAMES = ("background", "nucleus", "border")
MISSED = np.array([[90, 10, 0], [40, 60, 0], [5, 5, 0]])
"""Pixels: border is never predicted, and 40 % of nucleus are taken for background."""
FOUND = np.array([[90, 5, 5], [10, 80, 10], [1, 1, 8]])


def test_each_class_has_its_iou() -> None:
    iou = Scores(MISSED).iou
    assert class_lines(iou, NAMES) == ["  background   62.1", "  nucleus      52.2", "  border        0.0"]
    assert classes_in_short(iou, NAMES) == "background 62.1  nucleus 52.2  border 0.0"
    many = np.arange(30.0)[::-1]
    lines = class_lines(many, [f"c{index}" for index in range(30)])
    assert len(lines) == 13 and lines[0].split() == ["c29", "0.0"] and "18 classes" in lines[-1]
    assert classes_in_short(many, [f"c{index}" for index in range(30)]) == "lowest c29 0.0, c28 1.0, c27 2.0"


def report(split: str, images: int) -> SplitReport:
    quarters = np.zeros((images, 3, 2, 2), int)
    quarters[..., 0, 0] = [800, 196, 4]
    labels = LabelSet(NAMES, ((0, 0, 0), (0, 255, 0), (255, 0, 0)))
    return SplitReport(split, labels, quarters, ignored=0, sizes=((25, 40),) * images)


SOUND: dict[str, Any] = {
    "steps": range(10, 70, 10),
    "miou": [50, 60, 65, 66, 66.3, 66.2],
    "losses": [1, 0.8, 0.6, 0.5, 0.4, 0.4],
    "confusion": FOUND,
    "train": report("train", 80),
    "val": report("val", 20),
    "waiting": 0.05,
    "class_weights": None,
    "data": Folder("images", "masks"),
}


def told(**changes: Any) -> list[str]:
    run = SOUND | changes
    config = TrainConfig(epochs=50, workers=2, class_weights=run["class_weights"], data=run["data"])
    columns = {"step": run["steps"], "miou": run["miou"], "train_loss": run["losses"]}
    rows = [dict(zip(columns, map(str, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return advice(config, run["train"], run["val"], rows, run["confusion"], run["waiting"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"miou": [10, 20, 30, 40, 50, 60]}, "rose by 20.0 .* epochs 100$"),
        ({"miou": [10, 60, 59, 55, 54, 50]}, "fell by 10.0 after step 20"),
        ({"miou": [10, 60, 59, 55, 54, 50], "losses": [1] * 6}, None),
        ({"confusion": MISSED}, "^0 % .* border .* 0.4 % .* class_weights balanced"),
        ({"confusion": MISSED, "class_weights": "softened"}, "border .* images"),
        ({"steps": [1, 2, 3], "miou": [7, 8, 9], "losses": [1, 1, 1]}, "3 steps"),
        ({"waiting": 0.4}, "40 % .* workers than 2"),
        ({"val": report("val", 6)}, "6 images.* folds 5"),
        ({"val": report("val", 6), "data": Folder("images", "masks", folds=2)}, "6 images.* lot$"),
        ({"confusion": np.array([[9, 1, 0], [5, 5, 0], [0, 0, 9]])}, "50 % .* nucleus .* background"),
        ({"confusion": np.array([[90, 0, 0], [0, 90, 0], [10, 0, 0]])}, "^0 % .* border"),
    ],
)
def test_advice_follows_from_what_was_measured(changes: dict[str, Any], said: str | None) -> None:
    lines = told(**changes)
    assert re.search(said, lines[0]) if said else not lines
    assert len(told(confusion=MISSED, waiting=0.9, val=report("val", 2), miou=[1, 2, 3, 4, 5, 9])) == 4, "at most"


def test_a_run_tells_how_it_goes(tmp_path: Path) -> None:
    said = io.StringIO()
    config = tiny(tmp_path / "run", epochs=12, batch_size=4)
    folder = train(config, console=Console(file=said, width=300)).folder
    text = said.getvalue()
    names = DRAWN.label_set().names
    first, later = re.findall(r"(?m)^epoch .*mIoU.*$", text)[:2]
    assert re.fullmatch(r"epoch 1/12  step 2/24  loss [\d.]+  [\d.e+]+ images/s  \d+ s left  mIoU [\d.]+", first)
    assert re.fullmatch(r"epoch 2/12  step 4/24  .* s left  mIoU [\d.]+  lowest (\w[\w ]* [\d.]+(, )?){3}", later)
    table = text[text.index(first) : text.index(later)]
    assert sum(f"  {name} " in table for name in names) >= 10
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == ["step_000002.png", *(f"step_{step:06}.png" for step in range(8, 26, 2))], "at most ten"
    with Image.open(folder / "pictures/step_000024.png") as picture:
        assert picture.width < 1300
    best = max(rows(folder), key=lambda row: float(row["miou"]))
    end = text[text.index("best mIoU") :]
    score = f"{float(best['miou']):.2f}"
    assert end.startswith(f"best mIoU on val: {score} at step {best['step']}; the model is in {folder}/model\n")
    never = re.findall(r"(?m)^([\w ]+) is never predicted; ", end)
    assert never and all(float(best[f"iou/{name}"]) == 0 for name in never)
    assert "- val has 4 images" in end and "- there were only 24 steps" in end
