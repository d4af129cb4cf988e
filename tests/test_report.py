"""The page of an evaluation, and pages in general."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Refuses
from PIL import Image

from crispseg import SegmentationModel, create_model, pages
from crispseg.cli.main import main
from crispseg.data import Scenes, SegmentationDataset
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.report import examples, report_page
from crispseg.evaluation.scores import Counts, Scores
from crispseg.imaging import colorize
from crispseg.inference.protocols import WHOLE
from crispseg.labels import LabelSet
from crispseg.visuals import error_map

SCENES = Scenes(train=1, val=5, test=1, height=64, width=96)
VOID = {"img", "meta", "br", "hr"}


class Page(HTMLParser):
    """What a page holds; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())


def pixels(image: dict[str, str | None]) -> np.ndarray:
    assert image["src"] is not None
    kind, data = image["src"].split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", kind)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
    assert picture.shape[:2] == (int(image["height"] or 0), int(image["width"] or 0))
    return picture


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return create_model("fpn", num_classes=12, backbone="test_efficientnet", width=16)


@pytest.fixture(scope="module")
def val() -> SegmentationDataset:
    return SCENES.dataset("val")


@pytest.fixture(scope="module")
def scores(model: SegmentationModel, val: SegmentationDataset) -> Scores:
    return evaluate(model, val, device="cpu", workers=0)


# Examples -----------------------------------------------------------------------------------------------------------


def test_examples_are_the_extremes(model: SegmentationModel, val: SegmentationDataset, scores: Scores) -> None:
    worst, best = examples(model, val, scores, WHOLE, count=2)
    alone = {}
    for index in range(len(val)):
        one = evaluate(model, Part(val, [index]), device="cpu", workers=0)
        alone[val[index].name] = (one.miou, one.pixel_accuracy)
    order = sorted(alone, key=lambda name: alone[name][0])
    assert [example.sample.name for example in worst] == order[:2]
    assert [example.sample.name for example in best] == order[:-3:-1]
    for example in worst + best:
        assert (example.miou, example.pixel_accuracy) == pytest.approx(alone[example.sample.name])
        right = (example.labels == example.sample.labels)[example.sample.labels != 255].mean()
        assert 100 * right == pytest.approx(example.pixel_accuracy)


def test_no_image_is_both_best_and_worst(model: SegmentationModel, val: SegmentationDataset, scores: Scores) -> None:
    worst, best = examples(model, val, scores, WHOLE, count=4)
    assert (len(worst), len(best)) == (4, 1)
    assert len({example.sample.name for example in worst + best}) == 5


def test_equal_images_come_in_the_order_of_the_split(model: SegmentationModel, val: SegmentationDataset) -> None:
    hits, truth = np.array([[9, 9], [5, 5], [5, 5], [5, 5], [5, 5]]), np.full((5, 2), 10)
    equal = Scores(np.eye(2, dtype=np.int64), Counts(hits, truth, truth), np.arange(5))
    worst, best = examples(model, val, equal, WHOLE, count=2)
    names = [val[index].name for index in range(5)]
    assert [example.sample.name for example in worst] == [names[1], names[2]]
    assert [example.sample.name for example in best] == [names[0], names[3]]


class Part(SegmentationDataset):
    """Some images of a split."""

    def __init__(self, whole: SegmentationDataset, indices: list[int]) -> None:
        self.whole, self.indices, self.labels = whole, indices, whole.labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        return self.whole[self.indices[index]]


# Page ---------------------------------------------------------------------------------------------------------------


def test_page_shows_what_was_measured(model: SegmentationModel, val: SegmentationDataset, scores: Scores) -> None:
    worst, best = examples(model, val, scores, WHOLE, count=2)
    html = report_page("a model", "some data", val.labels, scores, worst=worst, best=best)
    page = Page(html)
    assert "http" not in html and "<script" not in html and "url(" not in html  # nothing is fetched or run
    assert page.words.count("Worst images") == page.words.count("Best images") == 1
    at = page.words.index("mIoU")
    assert page.words[at + 1] == f"{scores.miou:.1f}"
    for name, iou in zip(val.labels.names, scores.iou, strict=True):
        assert name in page.words
        assert ("–" if np.isnan(iou) else f"{iou:.1f}") in page.words

    assert len(page.images) == 1 + 4 * 4  # the confusion matrix, and image, truth, prediction and errors of four
    assert all(image["alt"] for image in page.images)
    example, palette = worst[0], val.labels.palette
    assert pixels(page.images[1]).shape == example.sample.image.shape
    for image, expected in zip(
        page.images[2:5],
        (
            colorize(example.sample.labels, palette),
            colorize(example.labels, palette),
            error_map(example.labels, example.sample.labels, palette),
        ),
        strict=True,
    ):
        assert (pixels(image) == expected).all()


def test_page_without_pictures_of_classes_that_do_not_occur() -> None:
    confusion = np.array([[3, 1], [0, 0]])
    counts = Counts(np.array([[3, 0]]), np.array([[4, 0]]), np.array([[3, 1]]))
    labels = LabelSet(("<b>road</b>", "sky & more"), ((1, 2, 3), (4, 5, 6)))
    bounds = {"miou": np.array([10.0, 20.0]), "iou": np.array([[60.0, np.nan], [80.0, np.nan]])}
    html = report_page("x", "y", labels, Scores(confusion, counts, np.array([0])), bounds=bounds)
    page = Page(html)
    assert "<b>road</b>" in page.words and "sky & more" in page.words
    assert "10.0 to 20.0" in page.words and page.words.count("60.0 to 80.0") == 1
    assert "Worst images" not in page.words


def test_names_cannot_become_html() -> None:
    evil = '"><script>alert(1)</script>'
    image = np.zeros((4, 4, 3), np.uint8)
    html = pages.page(
        evil,
        pages.heading(evil),
        pages.paragraph(evil),
        pages.cards([(evil, evil, evil)]),
        pages.table([evil], [[pages.named(evil, (1, 2, 3))]]),
        pages.legend([evil], [(1, 2, 3)]),
        pages.pictures([(pages.picture(image, evil), evil)]),
    )
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.images[0]["alt"] == evil
    assert page.words.count(evil) == 1 + 2 + 3 + 2 + 1 + 1  # title; heading, paragraph; card; table; legend; caption


def test_pictures_are_reduced_by_averaging() -> None:
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    picture = pixels(Page(pages.picture(stripes, "stripes", longest=40)).images[0])
    assert picture.shape == (20, 40, 3)
    assert abs(picture.astype(int) - 128).max() <= 1


def test_a_bar_is_as_long_as_its_number() -> None:
    html = pages.bar(12.5, [10, 20])
    assert "width: 12.50%" in html and "left: 10.00%; width: 10.00%" in html
    assert pages.bar(float("nan")) == ""
    assert "<u" not in pages.bar(50, [float("nan")] * 2)


# Command ------------------------------------------------------------------------------------------------------------


def test_evaluate_writes_a_page(model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path / "model")
    data = [f"--data.{key}={value}" for key, value in (("val", 3), ("height", 64), ("width", 96))]
    command = ["evaluate", str(tmp_path / "model"), "--data=scenes", *data, "--workers=0", "--boundary"]
    files = [f"--html={tmp_path / 'deep/page.html'}", f"--json={tmp_path / 'scores.json'}"]
    assert main([*command, *files]) == 0, capsys.readouterr().err
    page = Page((tmp_path / "deep/page.html").read_text(encoding="utf-8"))
    summary = json.loads((tmp_path / "scores.json").read_text())
    for name, value in (
        ("mIoU", summary["miou"]),
        ("boundary F, 3 px", summary["boundary_f"]["3"]),
        ("boundary IoU", summary["boundary_iou"]),
    ):
        assert page.words[page.words.index(name) + 1] == f"{value:.1f}"
    assert len(page.images) == 1 + 3 * 4


@pytest.mark.parametrize("key", ["--html", "--json"])
def test_where_nothing_can_be_written_is_said_first(
    model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / ("page.html" if key == "--html" else "scores.json")
    assert main(["evaluate", str(tmp_path / "model"), "--data=scenes", "--workers=0", f"{key}={target}"]) == 2
    captured = capsys.readouterr()
    assert "cannot be a folder" in captured.err and not captured.out


@pytest.mark.parametrize("name", ["page.html", "scores.json", "confusion.png"])
def test_a_folder_in_the_way_is_said_first(
    model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / name).mkdir()
    key = {"page.html": "--html", "scores.json": "--json", "confusion.png": "--confusion"}[name]
    assert main(["evaluate", str(tmp_path / "model"), "--data=scenes", "--workers=0", f"{key}={tmp_path / name}"]) == 2
    captured = capsys.readouterr()
    assert name in captured.err and "a folder of that name" in captured.err and not captured.out


def test_page_and_scores_are_two_files(
    model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "model")
    files = [f"--html={tmp_path / 'a.html'}", f"--json={tmp_path / 'a.html'}"]
    assert main(["evaluate", str(tmp_path / "model"), "--data=scenes", "--workers=0", *files]) == 2
    captured = capsys.readouterr()
    assert "a.html" in captured.err and "two files" in captured.err and not captured.out


def test_a_page_has_the_right_suffix(tmp_path: Path, refuses: Refuses) -> None:
    with refuses("page.pdf", ".html"):
        pages.write_page(tmp_path / "page.pdf", "")
    assert not list(tmp_path.iterdir())
