"""Runs of two epochs on a CPU, from Python and from the command line; and what is read of a run of the first format."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import crispseg
from contract.formula import FROZEN, assert_close, assert_same, frozen, picture, run, samples, write_png

NAMES = ["background", "thing", "edge"]
PLAIN: dict[str, Any] = {"model": {"name": "sfnet"}, "init_from": str(FROZEN / "sfnet"), "batch_size": 6}
PLAIN |= {"augment": {"crop": [48, 64], "scale": [1, 1], "flip": 0, "turn": False, "photometric": False, "repeat": 1}}
PLAIN |= {"optimizer": "adamw", "loss": {"cross_entropy": 1.0}, "class_weights": [1.0, 2.0, 3.0]}
"""Starts from saved weights and takes all images at each step, so that nothing is drawn."""
DRAWN: dict[str, Any] = {
    "model": {"name": "fpn", "backbone": "test_efficientnet", "pretrained": False, "width": 16},
    "augment": {"crop": [32, 32], "scale": [0.75, 1.5], "flip": 0.5, "turn": True, "photometric": True, "repeat": 2},
}
DRAWN |= {"batch_size": 2, "optimizer": "sgd", "lr": 0.05, "schedule": "poly"}
DRAWN |= {"auxiliary_weight": 0.4, "hard_fraction": 0.5, "ema": 0.9}
"""Weights, order, crops, colours and dropout follow from the seed."""
RUNS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "drawn": DRAWN,
    "refined": PLAIN | {"model": {"name": "unept"}, "init_from": str(FROZEN / "unept"), "lr": 0.01},
    "crisp": PLAIN | {"model": {"name": "crisp"}, "init_from": str(FROZEN / "crisp"), "clip": 1.0},
}
COMMON: dict[str, Any] = {"epochs": 2, "warmup": 0, "freeze_backbone": False, "precision": "fp32"}
COMMON |= {"accelerator": "cpu", "workers": 0, "seed": 3, "loggers": []}


def data(root: Path) -> Path:
    """Eight pairs of dark and bright places, and what lies between; two are for validation."""
    for index in range(8):
        image = picture((48, 64), index)
        mask = np.digitize(image[..., 0], (110, 150)).astype(np.uint8)
        mask = np.array([0, 2, 1], np.uint8)[mask]
        mask[:3] = 255
        write_png(root / f"images/{index}.png", image)
        write_png(root / f"masks/{index}.png", mask)
    (root / "val.txt").write_text("1\n6\n")
    return root


def settings(name: str, root: Path) -> dict[str, Any]:
    """All keys of a run, as in YAML."""
    own = {"root": str(root), "classes": NAMES}
    return {"data": {"name": "folder", **own}, **COMMON, **RUNS[name]}


def train(name: str, folder: Path) -> Any:
    """A run from Python in `folder / "run"`."""
    keywords = settings(name, data(folder / "data"))
    return crispseg.train(out=folder / "run", **keywords)


def rows(folder: Path) -> list[dict[str, float | None]]:
    """`metrics.csv` without the time."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def assert_rows(found: list[dict[str, float | None]], expected: list[dict[str, float | None]], drawn: bool) -> None:
    """Losses are equal to 1e-3 of their size and scores to 0.3 percent, some five pixels.

    What is `drawn`, dropout and colours, depends on the processor's instructions too: losses are equal to 3 %.
    """
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        for key, value in other.items():
            now = row[key]
            score = key.startswith(("miou", "iou", "boundary", "mean", "pixel", "accuracy"))
            if now is None or value is None:
                near = now == value
            elif score:
                near = drawn or abs(now - value) <= 0.3
            else:
                near = abs(now - value) <= ((0.03 if drawn else 1e-3) * abs(value) or 1e-6)
            assert near, f"{key} of epoch {other['epoch']}: {now}, not {value}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (at > 1)) for at, name in enumerate(RUNS)]
)
def test_a_run_from_python(name: str, tmp_path: Path) -> None:
    expected = frozen("training.json")[name]
    result = train(name, tmp_path)
    assert result.folder == tmp_path / "run"
    found = rows(tmp_path / "run")
    assert_rows(found, expected, name == "drawn")
    assert abs(result.miou - max(row["miou"] for row in found)) <= 0.1 and [*result.iou] == NAMES
    assert {"config.yaml", "metrics.csv", "checkpoints", "model"} <= {path.name for path in result.folder.iterdir()}
    info = crispseg.from_pretrained(tmp_path / "run").info
    assert (list(info.class_names), info.recipe["data"]["name"]) == (NAMES, "folder")
    if name == "plain":  # it goes on
        assert run("train", "--resume", tmp_path / "run", "--epochs=3")[0] == 0
        assert_rows(rows(tmp_path / "run"), frozen("training.json")["longer"], drawn=False)


def earlier(folder: Path) -> Path:
    """A run of the first format, without its checkpoints, whose data are there again."""
    data(folder / "data")
    made = Path(shutil.copytree(FROZEN / "run", folder / "run"))
    for name in ("config.yaml", "model/config.json"):
        path = made / name
        path.write_text(
            path.read_text().replace("@DATA@", str(folder / "data")).replace("@START@", str(FROZEN / "sfnet"))
        )
    return made


def seen(folder: Path) -> tuple[Any, Any, Any]:
    """Scores of an earlier run, its probabilities of an image, and its settings."""
    made = earlier(folder)
    assert (
        run("evaluate", made, "--workers=0", "--bootstrap=0", "--boundary", f"--json={folder / 'scores.json'}")[0] == 0
    )
    scores = json.loads((folder / "scores.json").read_text())
    found = samples(crispseg.Segmenter(made, "cpu")(picture((48, 64), 1)).probabilities())
    status, text = run("train", "--resume", made, "--print_config")
    assert status == 0
    return scores, found, yaml.safe_load(text)


def test_an_earlier_run(tmp_path: Path) -> None:
    """It is evaluated, predicts, and its settings are read."""
    scores, found, shown = seen(tmp_path)
    expected = frozen("run.json")
    assert_same(scores, expected["scores"], 1e-6)
    assert_close(found, np.asarray(expected["samples"], np.float32))
    lengths = {key: shown[key] for key in expected["settings"]}
    assert lengths == expected["settings"]
    assert shown["data"]["classes"] == NAMES and shown["model"]["width"] == 8
    assert run("predict", tmp_path / "run", tmp_path / "data/images/1.png", "--out", tmp_path / "out")[0] == 0
    assert run("train", tmp_path / "run/config.yaml", "--print_config")[0] == 0
    assert run("evaluate", tmp_path / "run", data(tmp_path / "other"), "--workers=0", "--split=train")[0] == 0
