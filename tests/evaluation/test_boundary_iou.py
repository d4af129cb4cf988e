from __future__ import annotations

import math
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from crispseg.evaluation import BoundaryIoU, BoundaryIoUScores

RATIO = 0.15  # of small masks: bands of 1 to 3 pixels


def scored(classes: int, prediction: Tensor, truth: Tensor, ratio: float = RATIO) -> BoundaryIoU:
    metric = BoundaryIoUScores(classes, ratio)
    metric.update(prediction, truth)
    return metric.scores()


def masks(seed: int, classes: int, shape: tuple[int, ...], ignored: float) -> tuple[Tensor, Tensor]:
    """A coarse random truth with ignored pixels, and a prediction of which one pixel in ten is random."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (shape[0], *(-(-size // 4) for size in shape[1:])), generator=random)
    truth = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : shape[1], : shape[2]].clone()
    wrong = torch.rand(shape, generator=random) < 0.1
    prediction = torch.where(wrong, torch.randint(classes, shape, generator=random), truth)
    truth[torch.rand(shape, generator=random) < ignored] = 255
    return prediction, truth


def naive(classes: int, predictions: Tensor, truths: Tensor) -> NDArray[np.float64]:
    """The published formula, class by class, with sets of pixels."""
    both, either = np.zeros((2, classes))
    for prediction, truth in zip(predictions.tolist(), truths.tolist(), strict=True):
        height, width = len(truth), len(truth[0])
        distance = max(round(RATIO * math.hypot(height, width)), 1)
        pixels = set(product(range(height), range(width)))
        ignored = {(y, x) for y, x in pixels if truth[y][x] == 255}

        def near_outline(
            mask: set[tuple[int, int]], free: set[tuple[int, int]] = ignored, far: int = distance, size: Any = pixels
        ) -> set[tuple[int, int]]:
            square = range(-far, far + 1)
            return {
                (y, x)
                for y, x in mask
                if any(
                    (y + down, x + right) not in size or (y + down, x + right) not in mask | free
                    for down, right in product(square, square)
                )
            }

        for index in range(classes):
            bands = [
                near_outline({(y, x) for y, x in pixels - ignored if labels[y][x] == index})
                for labels in (prediction, truth)
            ]
            both[index] += len(bands[0] & bands[1])
            either[index] += len(bands[0] | bands[1])
    return 100 * np.divide(both, either, out=np.full(classes, np.nan), where=either > 0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 4),
    count=st.integers(1, 2),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    ignored=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_it_is_the_published_formula(
    seed: int, classes: int, count: int, height: int, width: int, ignored: float
) -> None:
    prediction, truth = masks(seed, classes, (count, height, width), ignored)
    scores, expected = scored(classes, prediction, truth), naive(classes, prediction, truth)
    np.testing.assert_allclose(scores.iou, expected, rtol=1e-12)
    present = expected[~np.isnan(expected)]
    np.testing.assert_allclose(scores.mean, present.mean() if len(present) else math.nan, rtol=1e-12)


@pytest.mark.parametrize("shape", [(60, 80), (200, 300)])
def test_it_is_erosion_by_3_by_3_pixels(shape: tuple[int, int]) -> None:
    """For one class after the other, as the released code for single masks works."""
    prediction, truth = masks(3, 3, (1, *shape), 0.0)
    distance = max(round(0.02 * math.hypot(*shape)), 1)
    expected = []
    for index in range(3):
        bands = []
        for labels in (prediction, truth):
            padded = np.pad((labels[0] == index).numpy().astype(np.uint8), 1)
            eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
            bands.append((padded > eroded)[1:-1, 1:-1])
        expected.append(100 * (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())
    np.testing.assert_allclose(scored(3, prediction, truth, 0.02).iou, expected, rtol=1e-12)


def test_ignored_pixels_make_no_outline() -> None:
    truth = torch.zeros(1, 40, 40, dtype=torch.int64)
    truth[:, :, 18:22] = 255
    prediction = torch.where(truth == 255, 1, truth)
    scores = scored(2, prediction, truth, 0.02)
    assert scores.iou[0] == 100 and math.isnan(scores.iou[1])  # the border of the image is all that there is
    assert scores.images.truth[0, 0] == 40**2 - 38**2 - 2 * 4  # which is 1 pixel wide


def test_intersections_and_unions_are_summed_over_images() -> None:
    prediction, truth = masks(0, 3, (4, 20, 24), 0.05)
    scores = scored(3, prediction, truth)
    hits, truths, found = (getattr(scores.images, name).sum(0) for name in ("hits", "truth", "predicted"))
    np.testing.assert_allclose(scores.iou, 100 * hits / (truths + found - hits))
    metric = BoundaryIoUScores(3, RATIO)
    for index in range(4):
        metric.update(prediction[index : index + 1], truth[index : index + 1])
    np.testing.assert_array_equal(metric.scores().iou, scores.iou)
    np.testing.assert_array_equal(metric.compute()["boundary_iou_of_classes"].numpy(), scores.iou)


@pytest.mark.parametrize("ratio", [0, -0.02, 1.5, math.nan])
def test_the_ratio_is_checked(ratio: float, refuses: Any) -> None:
    with refuses(f"dilation_ratio is {ratio}", "0.02"):
        BoundaryIoUScores(2, ratio)
