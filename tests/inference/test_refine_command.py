"""`crispseg refine`, and `--model.refine` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import error_of, output_of
from PIL import Image
from training_runs import FLAGS

from crispseg import SegmentationModel, create_model
from crispseg.inference import Refiner
from crispseg.io.images import read_mask, write_image, write_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, their labels by a model without refinement (in other classes than the refiner's), and a refiner."""
    root = tmp_path_factory.mktemp("refine")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        refining_model().save_pretrained(root / "model")
        create_model("fpn", num_classes=3, backbone="test_efficientnet", width=16).save_pretrained(root / "plain")
    random = np.random.default_rng(0)
    for name, size in (("one", (40, 60)), ("sub/two", (33, 47))):
        write_image(root / "images" / f"{name}.jpg", random.integers(0, 256, (*size, 3), np.uint8))
        labels = random.integers(0, 20, (size[0] // 4 + 1, size[1] // 4 + 1), np.uint8).repeat(4, 0).repeat(4, 1)
        labels = labels[: size[0], : size[1]].copy()
        labels[:3] = 255
        write_labels(root / "labels" / f"{name}.png", labels, [(index, 2 * index, 9) for index in range(20)])
        write_image(root / "labels" / f"{name}_overlay.png", np.zeros((*size, 3), np.uint8))
    return root


def refining_model() -> SegmentationModel:
    model = create_model("fpn", num_classes=5, backbone="test_efficientnet", width=16, refine="boundary").eval()
    assert model.refiner is not None
    model.refiner.boundary_head[-1].bias.data.fill_(0.05)  # so that some pixels are on boundaries and some are not
    return model


def test_labels_of_any_model_are_refined(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    printed = output_of(
        capsys, "refine", folder / "model", folder / "images", "--labels", folder / "labels", "--out", out
    )
    assert "2 label maps" in printed
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["one.png", "sub/two.png"]
    model = SegmentationModel.from_pretrained(folder / "model")
    changed = total = 0
    for name in ("one", "sub/two"):
        before, after = (read_mask(base / f"{name}.png") for base in (folder / "labels", out))
        assert (before != after).any()
        changed, total = changed + np.count_nonzero(before != after), total + before.size
        assert np.array_equal(before == 255, after == 255)
        with Image.open(folder / "labels" / f"{name}.png") as old, Image.open(out / f"{name}.png") as new:
            assert old.getpalette()[:60] == new.getpalette()[:60] and new.mode == "P"  # type: ignore[index]
        assert np.array_equal(Refiner(model)(folder / "images" / f"{name}.jpg", before), after)
    assert f"; {100 * changed / total:.2f} % of the labels changed" in printed


@pytest.mark.parametrize(
    "image", [np.zeros((40, 60, 3)), np.zeros((40, 60), np.uint8), np.zeros((40, 60, 4), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray, folder: Path, refuses: Any) -> None:
    with refuses("(H, W, 3) uint8 array", str(image.dtype), str(image.shape)):
        Refiner(folder / "model")(image, np.zeros((40, 60), np.uint8))


def test_a_model_in_training_is_used_in_eval_mode_and_left_as_it_is(folder: Path) -> None:
    model = SegmentationModel.from_pretrained(folder / "model").train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    argv = folder / "images/one.jpg", read_mask(folder / "labels/one.png")
    assert np.array_equal(Refiner(model)(*argv), Refiner(folder / "model")(*argv))
    assert model.training and all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_images_smaller_than_a_model_takes_are_extended(folder: Path) -> None:
    """To the right and at the bottom, so that what is refined does not move."""
    image = np.random.default_rng(1).integers(0, 256, (20, 25, 3), np.uint8)
    labels = np.random.default_rng(2).integers(0, 20, (20, 25), np.uint8)
    extended = [np.pad(each, [(0, 12), (0, 7), (0, 0)][: each.ndim], mode="edge") for each in (image, labels)]
    refiner = Refiner(folder / "model")
    refined, whole = refiner(image, labels), refiner(*extended)
    assert (refined != labels).any()
    assert np.array_equal(refined[:16, :21], whole[:16, :21])  # further out, labels may come from what was added


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(
        model: str = "model",
        image: Path = folder / "images/one.jpg",
        labels: Path = folder / "labels",
        out: str = "out",
    ) -> str:
        return error_of(capsys, "refine", folder / model, image, "--labels", labels, "--out", tmp_path / out)

    assert "plain" in error("plain")
    assert str(tmp_path / "none") in error(labels=tmp_path / "none")
    assert "one.png" in error(labels=tmp_path)
    assert str(folder / "labels") in error(out=str(folder / "labels"))
    (tmp_path / "file").touch()
    assert "file" in error("none", out="file"), "said before the model is read"
    Image.new("L", (8, 9)).save(tmp_path / "one.png")
    line = error(labels=tmp_path)
    assert "one.png" in line and "9×8" in line and "40×60" in line
    Image.new("RGB", (60, 40)).save(tmp_path / "one.png")
    assert "one.png" in error(labels=tmp_path)


def test_a_run_is_trained_and_used_with_refinement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    output_of(capsys, "train", *FLAGS, "--model.refine=boundary", "--boundary_weights={direction: 0.5}", f"--out={run}")
    assert json.loads((run / "model/config.json").read_text())["options"]["refine"] == "boundary"
    assert "refine: boundary" in (run / "config.yaml").read_text()
    assert "mIoU" in output_of(capsys, "evaluate", run, "--workers=0")
    write_image(tmp_path / "in/photo.png", np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    output_of(capsys, "predict", run, tmp_path / "in", "--out", tmp_path / "predicted")
    output_of(capsys, "refine", run, tmp_path / "in", "--labels", tmp_path / "predicted", "--out", tmp_path / "refined")
    assert read_mask(tmp_path / "refined/photo.png").shape == (50, 70)
