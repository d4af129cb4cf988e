"""Binary masks, grey images and several losses, from the command line and end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import Capture, output_of
from drawn import as_flags, drawn
from PIL import Image

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.io.images import read_mask
from crispseg.labels import LabelSet

from .own_folders import TINY, scored

SIZE, COUNT = (64, 64), 4


def write_data(root: Path, *, white: int = 1, channels: int = 3) -> list[str]:
    """Four images of a bright square, and masks in which it is `white`; the flags that name them."""
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(COUNT):
        image = random.integers(0, 100, (*SIZE, channels), np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        top, left = random.integers(4, 28, 2)
        image[top : top + 32, left : left + 32] += 150
        mask[top : top + 32, left : left + 32] = white
        Image.fromarray(image[..., 0] if channels == 1 else image).save(root / f"images/{index}.png")
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    return ["--data=folder", f"--data.images={root / 'images'}", f"--data.masks={root / 'masks'}"]


def train_evaluate_predict(capsys: Capture, root: Path, *flags: str) -> Path:
    """Check that each step works and that predictions hold class ids; give the run."""
    run, scores, out = root / "run", root / "scores.json", root / "out"
    output_of(capsys, "train", *TINY, *flags, f"--out={run}")
    output_of(capsys, "evaluate", run, "--workers=0", f"--json={scores}")
    recorded = json.loads(scores.read_text())
    assert 0 <= recorded["miou"] <= 100 and np.sum(recorded["confusion"]) == 64 * 64
    output_of(capsys, "predict", run, root / "images", "--out", out)
    names = {f"{index}{ending}.png" for index in range(COUNT) for ending in ("", "_overlay")}
    assert {path.name for path in out.iterdir()} == names
    for index in range(COUNT):
        labels = read_mask(out / f"{index}.png")
        assert labels.shape == SIZE and labels.max() < from_pretrained(run).info.num_classes
        with Image.open(out / f"{index}_overlay.png") as overlay:
            assert overlay.mode == "RGB" and overlay.size == SIZE
    return run


# Binary masks -------------------------------------------------------------------------------------------------------


def test_black_and_white_masks_are_understood_and_remembered(tmp_path: Path, capsys: Capture) -> None:
    """Also where a mask to score on holds nothing but black."""
    black = tmp_path / "black"
    names = "--data.classes=[background, square]"
    run = train_evaluate_predict(capsys, tmp_path, *write_data(tmp_path, white=255), names, "--hard_fraction=1")
    assert from_pretrained(run).info.label_set() == LabelSet.colored(("background", "square"))
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["palette"] == [[0, 0, 0], [255, 255, 255]]
    assert main([*("train", "--resume", str(run)), "--epochs=2", "--workers=0"]) == 0
    for recorded in (run, run / "model"):
        data = write_data(black / recorded.name, white=0)
        assert scored(capsys, recorded, *data)[1]["confusion"][1] == [0, 0]


# Channels -----------------------------------------------------------------------------------------------------------


def test_grey_images(tmp_path: Path, capsys: Capture) -> None:
    """A model of one channel also segments colours; images of other channels are tested with bands of TIFFs."""
    run = train_evaluate_predict(capsys, tmp_path, *write_data(tmp_path, channels=1), "--model.in_chans=1")
    assert from_pretrained(run).info.in_chans == 1
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "rgb.png")
    output_of(capsys, "predict", run, tmp_path / "rgb.png", "--out", tmp_path / "out2")


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (["--model.in_chans=4"], "has 3 channel(s), not 4"),
        (["--model.in_chans=4", "--augment.photometric=true"], "augment.photometric does not support 4 channels"),
    ],
)
def test_channels_that_no_image_has(flags: list[str], phrase: str, tmp_path: Path, capsys: Capture) -> None:
    data = as_flags(drawn(train=4, val=2, height=64, width=64))
    assert main(["train", *TINY, *data, *flags, f"--out={tmp_path / 'run'}"]) == 2
    assert phrase in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run/config.yaml").exists()


# Losses -------------------------------------------------------------------------------------------------------------


def test_losses_train(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    run, losses = tmp_path / "run", {"cross_entropy": 1, "dice": 0.5, "focal": 2, "lovasz": 1}
    argv = [*TINY, *write_data(tmp_path), "--precision=bf16", f"--loss={json.dumps(losses)}"]
    output_of(capsys, "train", *argv, f"--out={run}")
    assert Train.parsed([str(run / "config.yaml")]).config().losses == losses


def test_losses_of_a_file_replace_those_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: nuclei\nloss: {dice: 1, focal: 2}\n")
    config = Train.parsed([str(path)]).config({"loss": {"cross_entropy": 1}})
    assert config.losses == {"dice": 1, "focal": 2}
    assert Train.parsed([str(path), "--loss=focal"]).config().losses == {"focal": 1}
    assert Train.parsed(["--data=nuclei"]).config().losses == {"cross_entropy": 1}
