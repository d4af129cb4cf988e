"""Pages on wide and narrow screens: tables stay inside, long names are cut, small pictures are seen in their pixels.

The confusion matrix is a picture.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import save
from PIL import Image
from training_runs import quietly, tiny

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.dataset import Sample
from crispseg.evaluation import BoundaryScores, SegmentationScores
from crispseg.evaluation.boundary import DISTANCES, BoundaryIoUScores
from crispseg.evaluation.report import Example, draw_confusion, report_page
from crispseg.evaluation.summary import Evaluation
from crispseg.labels import BACKGROUND, LabelSet
from crispseg.visualization import pages

LABELS = LabelSet.colored(["background", "nucleus", "border"])
LONG = "plate_7_well_B03_field_0012_channel_DAPI_exposure_120ms_" * 4 + "z"


def scored(metric: Any) -> Any:
    """The scores of two predictions of noise."""
    draws = np.random.default_rng(0).integers(0, 3, (2, 2, 1, 24, 24)).astype(np.uint8)
    for prediction, truth in torch.from_numpy(draws):
        metric.update(prediction, truth)
    return metric.scores()


@pytest.fixture(scope="module")
def evaluation() -> str:
    """The page of an evaluation with boundary scores, of an example with a very long name."""
    boundaries = scored(BoundaryScores(3, DISTANCES)), scored(BoundaryIoUScores(3))
    scores = Evaluation(LABELS, scored(SegmentationScores(3)), *boundaries, resamples=40)
    ids = np.zeros((24, 24), np.uint8)
    example = Example(Sample(np.zeros((24, 24, 3), np.uint8), ids, LONG), (ids,), (100.0,))
    return report_page("fpn on resnet18", "folder val", scores, ([example], []))


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 400])
def test_tables_stay_inside(width: int, evaluation: str, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(evaluation, encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "page.html").as_uri())
    tables = browser.execute_script(
        "return [...document.querySelectorAll('.wide')].map((e) => e.scrollWidth - e.clientWidth)"
    )
    assert tables and max(tables) <= 0
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


CLASSES = ["background", "<b>x</b>", "c & d"]
PAGES = ("report", "objects", "evaluation", "comparison", "next", "errors", "inspection")
ROWS_WITH_ONE_LEFT = """
return [...document.querySelectorAll(".cards, .sections, .charts, .pictures, .images")].filter((grid) => {
  const tops = [...grid.children].map((child) => child.getBoundingClientRect().top), rows = new Map();
  for (const top of tops) rows.set(top, (rows.get(top) ?? 0) + 1);
  const counts = [...rows.values()];
  return Math.max(...counts) >= (grid.matches(".charts") ? 2 : 3) && counts.at(-1) === 1;
}).map((grid) => grid.className)
"""
UNUSED = """
const done = arguments[0], unused = [];
for (const legend of document.querySelectorAll(".legend")) {
  const seen = [];
  for (let next = legend.nextElementSibling; next && next.tagName !== "H2"; next = next.nextElementSibling)
    for (const image of next.querySelectorAll("img")) {
      image.loading = "eager";
      await image.decode();
      const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
      canvas.drawImage(image, 0, 0);
      seen.push(canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data);
    }
  for (const swatch of legend.querySelectorAll(".swatch")) {
    const color = getComputedStyle(swatch).backgroundColor.match(/[0-9]+/g).map(Number);
    const near = (data, at) => color.every((level, channel) => Math.abs(level - data[at + channel]) <= 40);
    if (!seen.some((data) => data.some((_, at) => at % 4 === 0 && near(data, at))))
      unused.push(swatch.parentNode.textContent);
  }
}
done(unused);
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of each kind, of classes and images whose names are HTML."""
    root, random = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    for index in range(10):
        ids = np.kron(random.integers(0, 3, (4, 6)), np.ones((16, 16))).astype(np.uint8)
        shades = np.array([(30, 30, 30), (200, 60, 60), (60, 60, 200)], np.uint8)
        save(root / f"data/images/<i>{index}.png", shades[ids] + random.integers(0, 20, (*ids.shape, 3), np.uint8))
        if index < 8:
            save(root / f"data/masks/<i>{index}.png", ids)
    run = quietly(tiny(root / "run", data=Folder(root=root / "data", classes=CLASSES)))
    run.model.classifier.bias.data[1] += 1
    run.model.save_pretrained(root / "other")
    objects = "--objects=<b>x</b>"
    for command in (
        ["predict", run.folder, root / "data/images", "--out", root / "out", objects],
        ["evaluate", run.folder, "--html", root / "evaluation.html", "--bootstrap=20", objects],
        ["compare", run.folder, root / "other", "--html", root / "comparison.html", "--bootstrap=20"],
        ["label", "next", run.folder, root / "data/images", "--out", root / "next"],
        ["label", "errors", run.folder, "--out", root / "errors", "--count=4"],
        ["inspect", run.folder, root / "data/images/<i>0.png", "--out", root / "inspection.html"],
    ):
        assert main([*map(str, command)]) == 0, command
    for page, name in (
        ("run/report", "report"),
        ("out/report", "objects"),
        ("next/index", "next"),
        ("errors/index", "errors"),
    ):
        (root / f"{page}.html").rename(root / f"{name}.html")
    return root


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_every_kind_of_page_fits_a_phone_and_a_screen(name: str, written: Path, browser: Any) -> None:
    for width in (1280, 900, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((written / f"{name}.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(ROWS_WITH_ONE_LEFT) == [], width
    assert browser.execute_async_script(f"(async (...arguments) => {{ {UNUSED} }})(...arguments)") == []
    words = browser.execute_script("return document.body.textContent")
    assert "<b>x</b>" in words and not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(("name", "count"), [("objects", 10), ("evaluation", 2)])
def test_images_are_sorted(name: str, count: int, written: Path, browser: Any) -> None:
    browser.get((written / f"{name}.html").as_uri())
    values = "return [...document.querySelectorAll('.images dd:nth-child(2)')].map((e) => Number(e.dataset.value))"
    choose = "order.value = arguments[0]; order.dispatchEvent(new Event('change'))"
    before = browser.execute_script(values)
    for order, reverse in (("1 1", False), ("1 -1", True)):
        browser.execute_script(choose, order)
        assert browser.execute_script(values) == sorted(before, reverse=reverse) and len(before) == count


@pytest.mark.parametrize("clear", [None, BACKGROUND, (1, 2, 3)])
def test_one_colour_of_a_picture_can_be_seen_through(clear: Any) -> None:
    pixels = np.array([[BACKGROUND, (238, 153, 0)]], np.uint8)
    source = pages.embedded(pixels, "x", clear=clear).source
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert np.array_equal(np.array(picture.convert("RGB")), pixels)
    assert np.array(picture.convert("RGBA"))[0, :, 3].tolist() == [0 if clear == BACKGROUND else 255, 255]


@pytest.mark.parametrize(("colors", "mode"), [(256, "P"), (257, "RGB")])
def test_pictures_of_few_colours_have_a_palette(colors: int, mode: str) -> None:
    pixels = np.arange(8 * 40) % colors
    pixels = np.stack([pixels >> 8, pixels & 255, pixels * 7 & 255], axis=-1).astype(np.uint8).reshape(8, 40, 3)
    data = pages.embedded(pixels, "noise").source.removeprefix("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.mode == mode
    np.testing.assert_array_equal(picture.convert("RGB"), pixels)


@pytest.mark.parametrize("classes", [2, 13, 35])
def test_all_cells_are_there(classes: int) -> None:
    """Each class in a cell of its own, the darkest where all of its pixels are right."""
    picture = draw_confusion(np.eye(classes, dtype=np.int64), [f"class {index} {'w' * 60}" for index in range(classes)])
    darkest = (picture == (8, 48, 107)).all(2)
    rows, columns = np.nonzero(darkest)
    cell = (np.ptp(rows) + 1) / classes
    assert cell == pytest.approx((np.ptp(columns) + 1) / classes, abs=0.5) and cell >= 12
    for index in {0, classes // 2, classes - 1}:
        y, x = (round(edge.min() + (index + 0.15) * cell) for edge in (rows, columns))
        assert darkest[y, x]
