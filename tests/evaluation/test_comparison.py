"""Models beside each other."""

import json
import re
from pathlib import Path

import pytest
import torch
from drawn import as_flags, drawn

from crispseg import SegmentationModel, create_model
from crispseg.cli.main import main
from crispseg.evaluation import Scores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.report import examples
from tests.visualization.parsed import Page, pixels

DRAWN = drawn(train=1, val=5, test=1, height=64, width=96)
DATA = [*as_flags(drawn(val=5, height=64, width=96)), "--workers=0"]


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
def scores(models: list[SegmentationModel]) -> list[Scores]:
    return [evaluate(network, DRAWN.dataset("val"), device="cpu", workers=0) for network in models]


@pytest.fixture(scope="module")
def runs(models: list[SegmentationModel], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for index, network in enumerate(models):
        network.save_pretrained(folder / f"m{index}")
    return [str(folder / f"m{index}") for index in range(len(models))]


def test_most_changed(models: list[SegmentationModel], scores: list[Scores]) -> None:
    val, scores = DRAWN.dataset("val"), scores[:2]
    gains = scores[1].images.miou_of_truth - scores[0].images.miou_of_truth
    gained, lost = examples(models[:2], val, scores, count=2)
    assert [entry.miou[1] - entry.miou[0] for entry in gained] == pytest.approx(sorted(gains[gains > 0])[::-1][:2])
    assert [entry.miou[1] - entry.miou[0] for entry in lost] == pytest.approx(sorted(gains[gains < 0])[:2])
    names = [val[index].name for index in range(len(val))]
    for entry in gained + lost:
        at = names.index(entry.sample.name)
        right = [(labels == entry.sample.labels).sum() for labels in entry.labels]
        assert right == [score.images.hits[at].sum() for score in scores]
    assert examples([models[0]] * 2, val, [scores[0]] * 2) == ([], [])


def test_command(runs: list[str], scores: list[Scores], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    assert main(["compare", *runs, *DATA, *files]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [entry["name"] for entry in summary["models"]] == ["m0", "m1", "m2"]
    for entry, expected in zip(summary["models"], scores, strict=True):
        assert entry["miou"] == pytest.approx(expected.miou, abs=1e-4)
        assert f"{expected.miou:.1f}" in shown
    change = summary["models"][2]["change"]
    assert change["miou"] == pytest.approx(scores[2].miou - scores[0].miou, abs=1e-4)
    assert len(change["intervals"]["miou"]) == 2
    page = Page((tmp_path / "a.html").read_text())
    assert "Comparison of m0, m1, m2" in page.words
    forests, examples = page.images[:2], page.images[2:]
    assert len(examples) % 8 == 0 and examples  # image, truth, three predictions, their errors
    assert {pixels(image).shape for image in examples} == {(64, 96, 3)}
    assert [image["alt"] for image in forests] == ["gains with intervals"] * 2
    assert any(re.fullmatch(r"m2: mIoU \d+\.\d", word) for word in page.words)


def test_command_refuses(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(0, num_classes=3).save_pretrained(tmp_path / "three")
    assert main(["compare", runs[0], str(tmp_path / "three"), *DATA]) == 2
    captured = capsys.readouterr()
    assert "the model has 3 classes, the data 12" in captured.err and not captured.out
