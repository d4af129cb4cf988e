"""Models beside each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import as_flags, drawn

from crispseg import SegmentationModel, create_model
from crispseg.cli.main import main
from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.evaluation import BoundaryScores, Scores, SegmentationScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.report import comparison_page, examples
from crispseg.evaluation.summary import Evaluation, ModelComparison
from crispseg.labels import LabelSet
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
    return [evaluate(each, DRAWN.dataset("val"), device="cpu", workers=0) for each in models]


@pytest.fixture(scope="module")
def runs(models: list[SegmentationModel], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for index, each in enumerate(models):
        each.save_pretrained(folder / f"m{index}")
    return [str(folder / f"m{index}") for index in range(len(models))]


def test_most_changed(models: list[SegmentationModel], scores: list[Scores]) -> None:
    val, scores = DRAWN.dataset("val"), scores[:2]
    gains = scores[1].images.miou_of_truth - scores[0].images.miou_of_truth
    gained, lost = examples(models[:2], val, scores, count=2)
    assert [each.miou[1] - each.miou[0] for each in gained] == pytest.approx(sorted(gains[gains > 0])[::-1][:2])
    assert [each.miou[1] - each.miou[0] for each in lost] == pytest.approx(sorted(gains[gains < 0])[:2])
    names = [val[index].name for index in range(len(val))]
    for each in gained + lost:
        at = names.index(each.sample.name)
        right = [(labels == each.sample.labels).sum() for labels in each.labels]
        assert right == [score.images.hits[at].sum() for score in scores]
    assert examples([models[0]] * 2, val, [scores[0]] * 2) == ([], [])


class Partly(SegmentationDataset):
    """Images of which the first is ignored as a whole; it remembers for how many channels it was asked."""

    def __init__(self, asked: list[int]) -> None:
        self.whole, self.asked = DRAWN.dataset("val"), asked
        self.labels = self.whole.labels

    def __len__(self) -> int:
        return len(self.whole)

    def with_channels(self, in_chans: int, value_range: Any = None) -> Partly:
        self.asked.append(in_chans)
        return self

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[index]
        return sample._replace(labels=np.full_like(sample.labels, 255)) if index == 0 else sample


def test_most_changed_of_a_split_with_an_ignored_image(models: list[SegmentationModel]) -> None:
    asked: list[int] = []
    split = Partly(asked)
    grey = create_model("fpn", num_classes=12, backbone="test_efficientnet", width=16, in_chans=1).eval()
    pair = [models[0], grey]
    scores = [evaluate(each, split, device="cpu", workers=0) for each in pair]
    asked.clear()
    gained, lost = examples(pair, split, scores)
    assert asked == [3, 1] * len(gained + lost) and asked
    truths = {split[index].name: split[index].labels for index in range(len(split))}
    for each in gained + lost:
        for labels, miou in zip(each.labels, each.miou, strict=True):
            alone = SegmentationScores(12)
            alone.update(torch.from_numpy(labels)[None], torch.from_numpy(truths[each.sample.name])[None])
            assert alone.scores().miou == pytest.approx(miou)


def test_command(runs: list[str], scores: list[Scores], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    assert main(["compare", *runs, *DATA, *files]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [each["name"] for each in summary["models"]] == ["m0", "m1", "m2"]
    for each, expected in zip(summary["models"], scores, strict=True):
        assert each["miou"] == pytest.approx(expected.miou, abs=1e-4)
        assert f"{expected.miou:.1f}" in shown
    change = summary["models"][2]["change"]
    assert change["miou"] == pytest.approx(scores[2].miou - scores[0].miou, abs=1e-4)
    assert len(change["intervals"]["miou"]) == 2
    page = Page((tmp_path / "a.html").read_text())
    assert "Comparison of m0, m1, m2" in page.words
    assert len(page.images) % 8 == 0 and page.images  # image, truth, three predictions, their errors
    assert {pixels(image).shape for image in page.images} == {(64, 96, 3)}
    assert any(re.fullmatch(r"m2: mIoU \d+\.\d", word) for word in page.words)


def test_command_refuses(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(0, num_classes=3).save_pretrained(tmp_path / "three")
    assert main(["compare", runs[0], str(tmp_path / "three"), *DATA]) == 2
    captured = capsys.readouterr()
    assert "the model has 3 classes, the data 12" in captured.err and not captured.out


def test_the_page_has_the_scores_and_gains_of_each_class() -> None:
    truth = torch.arange(3).repeat_interleave(8).expand(6, 12, 24)
    worse = truth.clone()
    worse[:, 3:9, 18:] = 1  # part of class 2, in all images
    labels, results = LabelSet(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2))), []
    for name, prediction in (("good", truth), ("bad", worse)):
        metric, boundary = SegmentationScores(3), BoundaryScores(3, [3])
        for each in (metric, boundary):
            each.update(prediction, truth, range(6))
        named = {"name": name, "explanation": f"which is {name}"}
        results.append(Evaluation(labels, metric.scores(), boundary.scores(), **named))
    scores, f = results[1].scores, results[1].measures["boundary_f"][0]
    html = comparison_page("x", "y", ModelComparison(tuple(results), 100))
    words = Page(html).words
    assert words[words.index("good") + 1 :][:3] == ["100.0", "100.0", "which is good"]
    change, lost = (f"−{100 - value:.1f}" for value in (scores.miou, f))
    assert change != lost and 0 < f < 99
    at = words.index("bad")
    assert words[at + 1 : at + 5] == [
        f"{scores.miou:.1f}",
        f"{change} [{change}, {change}]",
        f"{f:.1f}",
        f"{lost} [{lost}, {lost}]",
    ]
    for name, iou in zip("abc", scores.iou, strict=True):
        at = words.index(name)
        assert words[at + 1 : at + 3] == ["100.0", "+0.0" if iou == 100 else f"−{100 - iou:.1f}"]
        assert f"<b>−{100 - iou:.1f}</b>" in html or iou == 100  # all images are alike: intervals leave out 0
    assert "<b>+0.0</b>" not in html
