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
from PIL import Image

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
    found = Evaluation(LABELS, scored(SegmentationScores(3)), *boundaries, resamples=40)
    ids = np.zeros((24, 24), np.uint8)
    example = Example(Sample(np.zeros((24, 24, 3), np.uint8), ids, LONG), (ids,), (100.0,))
    return report_page("fpn on resnet18", "folder val", found, [example])


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
