import math
import warnings

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from crispseg.evaluation import Scores, SegmentationScores


def pixels(seed: int, classes: int, shape: tuple[int, ...], ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Random prediction and truth."""
    random = torch.Generator().manual_seed(seed)
    prediction = torch.randint(classes, shape, generator=random)
    truth = torch.randint(classes, shape, generator=random)
    truth[torch.rand(shape, generator=random) < ignored] = 255
    return prediction, truth


def scored(classes: int, *batches: tuple[Tensor, Tensor]) -> SegmentationScores:
    metric = SegmentationScores(classes)
    for prediction, truth in batches:
        metric.update(prediction.reshape(1, 1, -1), truth.reshape(1, 1, -1))
    return metric


@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 255),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    batches=st.integers(1, 3),
)
def test_the_matrix_is_that_of_torchmetrics(
    seed: int, classes: int, height: int, width: int, ignored: float, batches: int
) -> None:
    reference = MulticlassConfusionMatrix(classes, ignore_index=255)
    metric = SegmentationScores(classes)
    for batch in range(batches):
        prediction, truth = pixels(seed + batch, classes, (2, height, width), ignored)
        metric.update(prediction, truth)
        if (truth != 255).any():
            reference.update(prediction, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compute before update, where all is ignored
        assert torch.equal(metric.compute(), reference.compute())
    assert metric.compute().dtype == torch.int64


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_scores_are_those_of_a_loop(seed: int, classes: int) -> None:
    prediction, truth = pixels(seed, classes, (4, 5))
    scores = scored(classes, (prediction, truth)).scores()
    pairs = [(int(p), int(t)) for p, t in zip(prediction.flatten(), truth.flatten(), strict=True) if t != 255]
    iou = []
    for index in range(classes):
        intersection = sum(p == index and t == index for p, t in pairs)
        union = sum(p == index or t == index for p, t in pairs)
        iou.append(100 * intersection / union if union else math.nan)
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12)
    occurring = [value for value in iou if not math.isnan(value)]
    np.testing.assert_allclose(scores.miou, sum(occurring) / len(occurring) if occurring else math.nan)
    right = 100 * sum(p == t for p, t in pairs) / len(pairs) if pairs else math.nan
    np.testing.assert_allclose(scores.pixel_accuracy, right)
    recalls, weighted = [], []
    for index in range(classes):
        hits = [p == index for p, t in pairs if t == index]
        recalls.append(100 * sum(hits) / len(hits) if hits else math.nan)
        weighted.append(len(hits) / len(pairs) * iou[index] if hits else 0.0)
    np.testing.assert_allclose(scores.accuracy, recalls, rtol=1e-12)
    present = [value for value in recalls if not math.isnan(value)]
    np.testing.assert_allclose(scores.mean_accuracy, sum(present) / len(present) if present else math.nan)
    np.testing.assert_allclose(scores.frequency_weighted_iou, sum(weighted) if pairs else math.nan)


def test_arrays_are_taken_too() -> None:
    scores = SegmentationScores(2)
    scores.update(np.array([[[0, 1]]]), np.array([[[0, 0]]], np.uint8))
    assert scores.compute().tolist() == [[1, 1], [0, 0]]


def test_no_pixels_give_nan_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Scores(np.zeros((3, 3), np.int64))
        assert math.isnan(scores.miou) and math.isnan(scores.pixel_accuracy) and np.isnan(scores.iou).all()
