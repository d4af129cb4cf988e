"""Models beside each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_report import Page, pixels

from crispseg import SegmentationModel, create_model
from crispseg.cli.compare import short_names
from crispseg.cli.main import main
from crispseg.data import Scenes
from crispseg.evaluation.evaluate import evaluate
from crispseg.inspection.comparison import DIFFERENCES, difference_map, most_changed

SCENES = Scenes(train=1, val=5, test=1, height=64, width=96)
DATA = ["--data=scenes", "--data.val=5", "--data.height=64", "--data.width=96", "--workers=0"]


def model(seed: int, num_classes: int = 12) -> SegmentationModel:
    torch.manual_seed(seed)
    model = create_model("fpn", num_classes=num_classes, backbone="test_efficientnet", width=16)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(4, 3, 64, 96))
    return model.eval()


@pytest.fixture(scope="module")
def models() -> list[SegmentationModel]:
    return [model(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def runs(models: list[SegmentationModel], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for index, each in enumerate(models):
        each.save_pretrained(folder / f"m{index}")
    return [str(folder / f"m{index}") for index in range(len(models))]


def test_difference_map() -> None:
    truth = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)
    first = np.array([[0, 1, 1, 2, 0, 0]], np.uint8)
    second = np.array([[0, 0, 2, 2, 1, 1]], np.uint8)
    kinds = ["right in both", "gained", "lost", "wrong in both, alike", "wrong in both, differently", "ignored"]
    colors = [next(color for name, color in DIFFERENCES if name.startswith(kind)) for kind in kinds]
    assert difference_map(first, second, truth)[0].tolist() == [list(color) for color in colors]
    assert len({color for _, color in DIFFERENCES}) == len(DIFFERENCES)


def test_most_changed(models: list[SegmentationModel]) -> None:
    val = SCENES.dataset("val")
    scores = [evaluate(each, val, device="cpu", workers=0) for each in models[:2]]
    gains = scores[1].images.miou - scores[0].images.miou  # type: ignore[union-attr]
    gained, lost = most_changed(models[:2], val, scores, count=2)
    assert [each.miou[1] - each.miou[0] for each in gained] == pytest.approx(sorted(gains[gains > 0])[::-1][:2])
    assert [each.miou[1] - each.miou[0] for each in lost] == pytest.approx(sorted(gains[gains < 0])[:2])
    names = [val[index].name for index in range(len(val))]
    for each in gained + lost:
        at = names.index(each.sample.name)
        right = [(labels == each.sample.labels).sum() for labels in each.labels]
        assert right == [score.images.hits[at].sum() for score in scores]  # type: ignore[union-attr]
    assert most_changed([models[0]] * 2, val, [scores[0]] * 2) == ([], [])


def test_command(
    runs: list[str], models: list[SegmentationModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    assert main(["compare", *runs, *DATA, *files]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [each["name"] for each in summary["models"]] == ["m0", "m1", "m2"]
    for each, network in zip(summary["models"], models, strict=True):
        expected = evaluate(network, SCENES.dataset("val"), device="cpu", workers=0).miou
        assert each["miou"] == pytest.approx(expected, abs=1e-4)
        assert f"{expected:.1f}" in shown
    page = Page((tmp_path / "a.html").read_text())
    assert "m0, m1, m2" in page.words
    assert len(page.images) % 7 == 0 and page.images  # image, truth, three predictions, two maps of changes
    assert {pixels(image).shape for image in page.images} == {(64, 96, 3)}
    assert any(re.fullmatch(r"m2: mIoU \d+\.\d, [+−]\d+\.\d", word) for word in page.words)


def test_command_refuses(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(0, num_classes=3).save_pretrained(tmp_path / "three")
    for words, phrases in (
        ([runs[0], str(tmp_path / "three"), *DATA], ["12 classes", "3", "need the same"]),
        ([runs[0], *DATA], ["others"]),
        ([runs[0], str(tmp_path / "none"), *DATA], ["none", "does not exist"]),
    ):
        assert main(["compare", *words]) == 2
        captured = capsys.readouterr()
        assert all(phrase in captured.err for phrase in phrases), captured.err
        assert not captured.out


def test_names_are_as_long_as_they_must_be() -> None:
    assert short_names(["a/b/x", "a/c/y"]) == ["x", "y"]
    assert short_names(["a/b/x", "a/c/x"]) == [str(Path("b/x")), str(Path("c/x"))]
    assert short_names(["x", "x"]) == ["x", "x"]
