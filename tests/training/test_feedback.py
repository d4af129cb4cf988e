"""What a run says while it goes on, and at its end."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from crispseg.data import Folder
from crispseg.data.examination import SplitReport
from crispseg.labels import LabelSet
from crispseg.training import TrainConfig
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
