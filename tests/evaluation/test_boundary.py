import json
import math
import re
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from drawn import as_flags, drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from training_runs import of_many_opinions

from crispseg import SegmentationModel
from crispseg.cli.main import main
from crispseg.evaluation import BoundaryF, BoundaryIoU, BoundaryIoUScores, BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.summary import Evaluation
from crispseg.io.images import read_image

DISTANCES = (1, 2, 3)
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "quality.md"


def scored(
    classes: int, prediction: Tensor, truth: Tensor, distances: tuple[int, ...] = DISTANCES, empty: Any = "skip"
) -> BoundaryF:
    metric = BoundaryScores(classes, distances, empty)
    metric.update(prediction, truth)
    return metric.scores()


def blobs(seed: int, classes: int, shape: tuple[int, ...], ignored: float) -> tuple[Tensor, Tensor]:
    """A coarse random truth with ignored pixels and a prediction that is right in four of five pixels."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (shape[0], *(-(-size // 3) for size in shape[1:])), generator=random)
    truth = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : shape[1], : shape[2]].clone()
    wrong = torch.rand(shape, generator=random) < 0.2
    prediction = torch.where(wrong, torch.randint(classes, shape, generator=random), truth)
    truth[torch.rand(shape, generator=random) < ignored] = 255
    return prediction, truth


def naive(classes: int, prediction: Tensor, truth: Tensor, distances: tuple[int, ...]) -> NDArray[np.float64]:
    """F `(N, D, C)` in percent, pixel by pixel; NaN without a boundary in truth and prediction."""

    def boundary(labels: Any, ignored: Any, index: int) -> list[tuple[int, int]]:
        height, width = labels.shape
        places = []
        for y, x in product(range(height), range(width)):
            for below, beside in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if below == height or beside == width or ignored[y, x] or ignored[below, beside]:
                    continue
                if (labels[y, x] == index) != (labels[below, beside] == index):
                    places.append((y, x))
                    break
        return places

    def share(ours: list[tuple[int, int]], theirs: list[tuple[int, int]], distance: int) -> float:
        near = [any(math.hypot(y - v, x - u) <= distance for v, u in theirs) for y, x in ours]
        return sum(near) / len(near) if near else 1.0

    result = np.full((len(truth), len(distances), classes), np.nan)
    for image, (at, distance), index in product(range(len(truth)), enumerate(distances), range(classes)):
        ignored = truth[image] == 255
        pixels, wanted = (boundary(labels[image], ignored, index) for labels in (prediction, truth))
        if pixels or wanted:
            precision, recall = share(pixels, wanted, distance), share(wanted, pixels, distance)
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            result[image, at, index] = 100 * f
    return result[(truth != 255).flatten(1).any(1).numpy()]


DRAWS = given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 4),
    count=st.integers(1, 2),
    height=st.integers(1, 10),
    width=st.integers(1, 10),
    ignored=st.sampled_from([0.0, 0.1, 1.0]),
)


@settings(max_examples=30)
@DRAWS
def test_scores_are_those_of_a_loop(
    seed: int, classes: int, count: int, height: int, width: int, ignored: float
) -> None:
    prediction, truth = blobs(seed, classes, (count, height, width), ignored)
    images = naive(classes, prediction, truth, DISTANCES)
    every = np.where(np.isnan(images), 100, images)
    for empty, expected in (("skip", images), ("1", every)):
        scores = scored(classes, prediction, truth, empty=empty)
        measures = scores.measures()
        np.testing.assert_allclose(np.sort(scores.per_image, 0), np.sort(expected, 0), rtol=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where all are NaN
            f = np.nanmean(expected, 0) if len(expected) else np.full((len(DISTANCES), classes), np.nan)
            means = np.nanmean(f, 1)
        np.testing.assert_allclose(measures["boundary_f_of_classes"], f, rtol=1e-12)
        np.testing.assert_allclose(measures["boundary_f"], means, rtol=1e-12)


def test_far_distances_stay_exact() -> None:
    truth, prediction = torch.zeros(2, 1, 3, 900, dtype=torch.int64)
    truth[..., 40:] = 1
    prediction[..., 840:] = 1
    values = scored(2, prediction, truth, (799, 800)).measures()["boundary_f_of_classes"]
    assert values.tolist() == [[0, 0], [100, 100]]


@pytest.mark.parametrize("distances", [(), (0,), (3, -1), (3, 3), (2.5,), ("a",)])
def test_distances_are_checked(distances: Any, refuses: Any) -> None:
    with refuses("distances", "at least 1"):
        BoundaryScores(2, distances)


# Boundary IoU

RATIO = 0.15  # of small masks: bands of 1 to 3 pixels


def iou_scored(classes: int, prediction: Tensor, truth: Tensor, ratio: float = RATIO) -> BoundaryIoU:
    metric = BoundaryIoUScores(classes, ratio)
    metric.update(prediction, truth)
    return metric.scores()


def eroded_iou(classes: int, predictions: Tensor, truths: Tensor, ratio: float) -> NDArray[np.float64]:
    """The published formula, class by class with erosion by 3 × 3 pixels, as in the released code for single masks."""
    both, either = np.zeros((2, classes))
    distance = max(round(ratio * math.hypot(*truths.shape[1:])), 1)
    for prediction, truth in zip(predictions.numpy(), truths.numpy(), strict=True):
        free = truth == 255
        for index in range(classes):
            bands = []
            for mask in ((labels == index) & ~free for labels in (prediction, truth)):
                padded = np.pad((mask | free).astype(np.uint8), 1)
                eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
                bands.append(mask & (eroded == 0))
            both[index] += (bands[0] & bands[1]).sum()
            either[index] += (bands[0] | bands[1]).sum()
    return 100 * np.divide(both, either, out=np.full(classes, np.nan), where=either > 0)


@pytest.mark.parametrize("shape", [(1, 60, 80), (2, 200, 300)])
def test_bands_of_larger_images(shape: tuple[int, ...]) -> None:
    prediction, truth = blobs(3, 3, shape, 0.01)
    values = iou_scored(3, prediction, truth, 0.02).measures()["boundary_iou_of_classes"]
    np.testing.assert_allclose(values, eroded_iou(3, prediction, truth, 0.02), rtol=1e-12)


@settings(max_examples=25)
@DRAWS
def test_it_is_the_published_formula(
    seed: int, classes: int, count: int, height: int, width: int, ignored: float
) -> None:
    prediction, truth = blobs(seed, classes, (count, height, width), ignored)
    scores, expected = iou_scored(classes, prediction, truth), eroded_iou(classes, prediction, truth, RATIO)
    np.testing.assert_allclose(scores.measures()["boundary_iou_of_classes"], expected, rtol=1e-12)
    present = expected[~np.isnan(expected)]
    mean = present.mean() if len(present) else math.nan
    np.testing.assert_allclose(scores.measures()["boundary_iou"], mean, rtol=1e-12)


# In an evaluation

DRAWN = drawn(height=64, width=64, val=3)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return of_many_opinions(12)


def test_command(model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path / "model")
    boundary, boundary_iou = BoundaryScores(12, (2, 5)), BoundaryIoUScores(12)
    data_set = DRAWN.dataset("val")
    scores = evaluate(model, data_set, device="cpu", workers=0, boundary=boundary, boundary_iou=boundary_iou)
    data = as_flags(DRAWN)
    argv = ["evaluate", str(tmp_path / "model"), *data, "--workers=0", "--device=cpu"]

    assert main([*argv, "--boundary", "2", "5", "--json", str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "scores.json").read_text())
    parts = scores, boundary.scores(), boundary_iou.scores()
    expected = Evaluation(data_set.labels, *parts, resamples=1000).as_json()
    of_images = written.pop("of_images")
    calibration = {key: written.pop(key) for key in ("calibration_error", "reliability")}  # tested with calibration
    assert [row["name"] for row in of_images] == [data_set.name_of(index) for index in range(3)]
    assert [row["miou"] for row in of_images] == pytest.approx(scores.images.miou.tolist(), abs=1e-4)
    assert written == {"split": "val", "images": 3, "protocol": "whole image", **expected}
    near, far = boundary.scores().measures()["boundary_f"]
    bounds = boundary_iou.scores().estimates()["boundary_iou"].interval
    assert written["boundary_f"] == pytest.approx({"2": near, "5": far}, abs=1e-4) and near < far
    assert tuple(written["boundary_f_of_classes"]["5"]) == data_set.labels.names
    assert written["intervals"]["boundary_iou"] == pytest.approx(bounds.tolist(), abs=1e-4)
    assert f"[{bounds[0]:.1f}, {bounds[1]:.1f}]" in shown
    documented = set(re.findall(r"`(\w+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    assert documented >= {*written, *written["intervals"], *calibration}

    plain = ["--json", str(tmp_path / "plain.json"), "--bootstrap", "0", f"--confusion={tmp_path / 'confusion.png'}"]
    assert main([*argv, *plain]) == 0
    assert "[" not in capsys.readouterr().out and read_image(tmp_path / "confusion.png").std() > 10
    plain_keys = {"of_images", *calibration, *(key for key in written if "boundary" not in key)} - {"intervals"}
    assert json.loads((tmp_path / "plain.json").read_text()).keys() == plain_keys

    for mistake, phrase in ((["--boundary", "0"], "--boundary is 0"), (["--bootstrap", "-1"], "greater than or")):
        assert main([*argv, *mistake]) == 2
        assert phrase in capsys.readouterr().err
