"""The page of an evaluation, and pages in general."""

import numpy as np
import pytest
import torch
from drawn import drawn

from crispseg import SegmentationModel, create_model
from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.report import Example, examples, report_page, verdict
from crispseg.evaluation.scores import Scores, SegmentationScores
from crispseg.evaluation.summary import Evaluation
from crispseg.inference.protocols import WHOLE
from crispseg.io.images import colorize
from crispseg.labels import LabelSet
from crispseg.visualization.pictures import error_map
from tests.visualization.parsed import Page, pixels

DRAWN = drawn(train=1, val=5, test=1, height=64, width=96)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return create_model("fpn", num_classes=12, backbone="test_efficientnet", width=16)


@pytest.fixture(scope="module")
def val() -> SegmentationDataset:
    return DRAWN.dataset("val")


@pytest.fixture(scope="module")
def scores(model: SegmentationModel, val: SegmentationDataset) -> Scores:
    return evaluate(model, val, device="cpu", workers=0)


def test_examples_are_the_extremes(model: SegmentationModel, val: SegmentationDataset, scores: Scores) -> None:
    worst, best = examples([model], val, [scores], WHOLE, count=2)
    order = np.argsort(scores.images.miou_of_truth)
    names = [val.name_of(index) for index in order]
    assert [example.sample.name for example in worst] == names[:2]
    assert [example.sample.name for example in best] == names[:-3:-1]
    for example in worst + best:
        alone = SegmentationScores(12)
        alone.update(torch.from_numpy(example.labels[0])[None], torch.from_numpy(example.sample.labels)[None])
        assert example.miou == pytest.approx([alone.scores().miou_of_truth])


def test_page_shows_what_was_measured(model: SegmentationModel, val: SegmentationDataset, scores: Scores) -> None:
    worst, best = examples([model], val, [scores], WHOLE, count=2)
    html = report_page("a model", "some data", Evaluation(val.labels, scores), (worst, best))
    page = Page(html)
    assert "http" not in html and "<script" not in html and "url(" not in html  # nothing is fetched or run
    assert page.words.count("Worst images") == page.words.count("Best images") == 1
    at = page.words.index("mIoU")
    assert page.words[at + 1] == f"{scores.miou:.1f}"
    for name, iou in zip(val.labels.names, scores.iou, strict=True):
        assert name in page.words
        assert ("–" if np.isnan(iou) else f"{iou:.1f}") in page.words

    assert len(page.images) == 1 + 4 * 4  # the confusion matrix; image, truth, prediction and errors of four
    assert all(image["alt"] for image in page.images)
    example, palette = worst[0], val.labels.palette
    assert pixels(page.images[1]).shape == example.sample.image.shape
    expected = [colorize(labels, palette) for labels in (example.sample.labels, example.labels[0])]
    expected.append(error_map(example.sample.image, example.labels[0], example.sample.labels, val.labels))
    for image, picture in zip(page.images[2:5], expected, strict=True):
        assert (pixels(image) == picture).all()


@pytest.mark.parametrize(
    ("confusion", "sentence"),
    [
        ([[90, 0, 0], [46, 20, 34], [0, 0, 50]], "b has the lowest IoU, 20.0: it is taken for a (46 %)."),
        ([[90, 10, 0], [0, 2, 0], [0, 0, 50]], "b has the lowest IoU, 16.7."),
        ([[90, 0, 0], [0, 70, 1], [0, 1, 50]], "c has the lowest IoU, 96.2."),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], ""),
    ],
)
def test_the_verdict_names_the_weakest_class(confusion: list[list[int]], sentence: str) -> None:
    assert verdict(Scores(np.array(confusion)), "abc") == sentence


def test_names_cannot_become_html() -> None:
    evil = '"><script>alert(1)</script>'
    labels = LabelSet((evil, "b"), ((1, 2, 3), (4, 5, 6)))
    image, zeros = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    example = Example(Sample(image, zeros, evil), (zeros,), (1,))
    html = report_page(evil, evil, Evaluation(labels, Scores(np.eye(2, dtype=np.int64))), ([example], []))
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert evil in page.images[1]["alt"]
    assert page.words.count(evil) == 6  # tab, title, conditions, class, legend, image


@pytest.fixture(scope="module")
def saved(model: SegmentationModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report") / "model"
    model.save_pretrained(folder)
    return str(folder)
