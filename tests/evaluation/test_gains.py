"""Paired gains of one result over another: values, bootstrap intervals, and what they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Refuses
from torch import Tensor

from crispseg.evaluation.bootstrap import Estimate, mean_of_present, score_gains
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.scores import SegmentationScores


def labels(seed: int, images: int = 6, wrong: float = 0.3) -> tuple[Tensor, Tensor]:
    """Prediction and truth of images with 4 classes, `wrong` of the pixels wrong."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(4, (images, 3, 4), generator=torch.Generator().manual_seed(0))
    truth = truth.repeat_interleave(4, 1).repeat_interleave(4, 2)  # (N, 12, 16)
    noise = torch.randint(4, truth.shape, generator=generator)
    return torch.where(torch.rand(truth.shape, generator=generator) < wrong, noise, truth), truth


def test_gains_are_those_of_resampled_splits() -> None:
    pairs = [labels(1, wrong=0.4), labels(2, wrong=0.3)]
    metrics = [SegmentationScores(4, per_image=True) for _ in pairs]
    boundaries = [BoundaryScores(4, [1, 2]) for _ in pairs]
    for metric, boundary, pair in zip(metrics, boundaries, pairs, strict=True):
        metric.update(*pair, ids=range(6))
        boundary.update(*pair, ids=range(6))
    first, second = (metric.scores() for metric in metrics)
    gains = score_gains(first, second, resamples=200, seed=3)

    drawn = np.random.default_rng(3).integers(6, size=(200, 6))
    differences = []
    for images in drawn:
        values = []
        for prediction, truth in pairs:
            scores = SegmentationScores(4)
            scores.update(prediction[images], truth[images])
            values.append(scores.scores().miou)
        differences.append(values[1] - values[0])
    assert gains["miou"].value == pytest.approx(second.miou - first.miou)
    assert gains["miou"].interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert gains["iou"].value == pytest.approx(second.iou - first.iou)
    own = second.images.miou - first.images.miou
    assert gains["image_miou"].value == pytest.approx(own.mean())
    assert gains["image_miou"].interval == pytest.approx(np.percentile(own[drawn].mean(1), [2.5, 97.5]))
    assert np.ptp(gains["miou"].interval) < 2 * np.ptp(second.estimates(200)["miou"].interval)

    before, after = (boundary.scores() for boundary in boundaries)
    f = score_gains(before, after, resamples=50)
    assert f["boundary_f"].value == pytest.approx([after.mean[1] - before.mean[1], after.mean[2] - before.mean[2]])
    assert f["boundary_f_of_classes"].value.shape == (2, 4)
    assert f["boundary_f_of_classes"].at(1).interval.shape == (2, 4)
    means = [
        [mean_of_present(mean_of_present(each.per_image[images], 0)) for each in (before, after)]
        for images in np.random.default_rng(0).integers(6, size=(50, 6))
    ]
    expected = np.percentile([after - before for before, after in means], [2.5, 97.5], axis=0)
    np.testing.assert_allclose(f["boundary_f"].interval, expected, atol=1e-10)


@pytest.mark.parametrize(("interval", "clear"), [((1, 2), True), ((-2, -1), True), ((-1, 2), False)])
def test_a_gain_is_clear_if_its_interval_leaves_out_0(interval: tuple[float, float], clear: bool) -> None:
    assert bool(Estimate(np.array(1.0), np.array(interval, float), gain=True).is_clear) is clear


def test_gains_need_the_same_images(refuses: Refuses) -> None:
    prediction, truth = labels(1)
    other = torch.where(truth == 3, 0, truth)
    for kind in (SegmentationScores, BoundaryScores):
        found = []
        for true, ids in ((truth, range(6)), (truth, range(1, 7)), (other, range(6))):
            metric = kind(4, per_image=True) if kind is SegmentationScores else BoundaryScores(4, [1])
            metric.update(prediction, true, ids=ids)
            found.append(metric.scores())
        with refuses("not of the same images"):
            score_gains(found[0], found[1])
        if kind is SegmentationScores:
            with refuses("the same truth"):
                score_gains(found[0], found[2])
    whole = SegmentationScores(4)
    whole.update(prediction, truth)
    with refuses("gains need the counts of each image", "per_image=True"):
        score_gains(whole.scores(), whole.scores())
