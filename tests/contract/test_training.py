"""What is read of a run of the first format."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import crispseg
from contract.formula import FROZEN, assert_close, assert_same, frozen, picture, run, samples, write_png

NAMES = ["background", "thing", "edge"]


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


def earlier(folder: Path) -> Path:
    """A run of the first format, without its checkpoints, whose data are there again."""
    data(folder / "data")
    made = Path(shutil.copytree(FROZEN / "run", folder / "run"))
    for name in ("config.yaml", "model/config.json"):
        path = made / name
        path.write_text(
            path.read_text().replace("@DATA@", str(folder / "data")).replace("@START@", str(FROZEN / "sfnet"))
        )
    gone = "layer_decay: null\ncache_features: false\ncache_versions: 4\ncache_limit: 10.0\n"  # of runs in between
    with (made / "config.yaml").open("a") as file:
        file.write(gone)
    return made


def seen(folder: Path) -> tuple[Any, Any, Any]:
    """Scores of an earlier run, its probabilities of an image, and its settings."""
    made = earlier(folder)
    assert (
        run("evaluate", made, "--workers=0", "--bootstrap=0", "--boundary", f"--json={folder / 'scores.json'}")[0] == 0
    )
    scores = json.loads((folder / "scores.json").read_text())
    probabilities = samples(crispseg.Segmenter(made, "cpu")(picture((48, 64), 1)).probabilities())
    status, text = run("train", "--resume", made, "--print_config")
    assert status == 0
    return scores, probabilities, yaml.safe_load(text)


def test_an_earlier_run(tmp_path: Path) -> None:
    """It is evaluated, predicts, and its settings are read."""
    scores, probabilities, shown = seen(tmp_path)
    expected = frozen("run.json")
    assert_same(scores, expected["scores"], 1e-6)
    assert_close(probabilities, np.asarray(expected["samples"], np.float32))
    assert shown["augment"].pop("cutmix") is None  # newer than the run
    lengths = {key: shown[key] for key in expected["settings"]}
    assert lengths == expected["settings"]
    assert shown["data"]["classes"] == NAMES and shown["model"]["width"] == 8
    assert run("predict", tmp_path / "run", tmp_path / "data/images/1.png", "--out", tmp_path / "out")[0] == 0
    assert run("train", tmp_path / "run/config.yaml", "--print_config")[0] == 0
    assert run("evaluate", tmp_path / "run", data(tmp_path / "other"), "--workers=0", "--split=train")[0] == 0
