"""Counts of each image: intervals, and several processes."""

from __future__ import annotations

import io
import math
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from crispseg.evaluation import BoundaryIoUScores, BoundaryScores, Counts, SegmentationScores
from crispseg.evaluation.evaluate import intervals, score_table
from crispseg.evaluation.per_image import interval, mean_of_present, resample
from crispseg.evaluation.scores import MEASURES
from crispseg.labels import LabelSet

Pair = tuple[Tensor, Tensor]


def labelled(seed: int, classes: int, sizes: list[tuple[int, int]]) -> list[Pair]:
    """Prediction and truth `(1, H, W)` of images of several sizes."""
    random = np.random.default_rng(seed)
    pairs = []
    for height, width in sizes:
        coarse = random.integers(classes, size=(height // 4, width // 4))
        truth = np.kron(coarse, np.ones((4, 4), np.int64))
        prediction = np.where(random.random(truth.shape) < 0.3, random.integers(classes, size=truth.shape), truth)
        truth[random.random(truth.shape) < 0.05] = 255
        pairs.append((torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None]))
    return pairs


SIZES = [(16, 20), (16, 20), (12, 24), (12, 24), (24, 16)]
BATCHES = [[0, 1], [2, 3], [4]]  # of one size, the last one uneven


def all_metrics(classes: int) -> list[Any]:
    return [
        SegmentationScores(classes, per_image=True),
        BoundaryScores(classes, (1, 2)),
        BoundaryIoUScores(classes, 0.05),
    ]


def everything(metrics: list[Any]) -> list[NDArray[Any]]:
    """All numbers that three metrics give, with intervals."""
    scores, boundary, boundary_iou = (metric.scores() for metric in metrics)
    bounds = intervals(scores, boundary, boundary_iou, 50)
    return [
        scores.confusion,
        scores.images.rows,
        *(np.array(getattr(scores, name)) for name in ("miou", "iou", "pixel_accuracy", "accuracy", "mean_accuracy")),
        *(getattr(boundary, name) for name in ("precision", "recall", "f", "images", "per_image")),
        boundary_iou.iou,
        *(each.ids for each in (scores, boundary, boundary_iou)),
        *bounds.values(),
    ]


def same(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> None:
    """To the last bit."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


# Several processes


def add(metrics: list[Any], pairs: list[Pair], batch: list[int], numbered: bool) -> None:
    prediction, truth = (torch.cat(labels) for labels in zip(*(pairs[index] for index in batch), strict=True))
    for metric in metrics:
        metric.update(prediction, truth, batch if numbered else None)


def share(rank: int, processes: int, folder: Path, numbered: bool, padded: bool) -> None:
    """What one of several processes sees and writes; a process may have no batch at all."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    try:
        metrics, pairs = all_metrics(3), labelled(0, 3, SIZES)
        batches = BATCHES[rank::processes]
        if padded and len(batches) < -(-len(BATCHES) // processes):  # as loaders do, with ignored labels
            pairs.append((pairs[-1][0], torch.full_like(pairs[-1][1], 255)))
            batches.append([len(pairs) - 1])
        for batch in batches:
            add(metrics, pairs, batch, numbered)
        with (folder / f"{rank}.pickle").open("wb") as file:
            pickle.dump(([metric.compute() for metric in metrics], everything(metrics)), file)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("processes", "numbered", "padded"), [(2, True, True), (2, False, False), (4, True, False)])
def test_several_processes_score_as_one(
    processes: int, numbered: bool, padded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=share, args=(rank, processes, tmp_path, numbered, padded)) for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * processes
    metrics, pairs = all_metrics(3), labelled(0, 3, SIZES)
    for batch in BATCHES:
        add(metrics, pairs, batch, numbered)
    alone = everything(metrics)
    assert len(metrics[1].scores().ids) == len(SIZES)
    for rank in range(processes):
        computed, found = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        same(found, alone)
        for metric, theirs in zip(metrics, computed, strict=True):
            torch.testing.assert_close(theirs, metric.compute(), rtol=0, atol=0, equal_nan=True)


def test_the_order_of_images_makes_no_difference() -> None:
    pairs = labelled(1, 4, SIZES)
    for numbers in (range(len(pairs)), None):
        results = []
        for order in (list(range(len(pairs))), [3, 0, 4, 2, 1]):
            metrics = all_metrics(4)
            for index in order:
                for metric in metrics:
                    metric.update(*pairs[index], None if numbers is None else [index])
            results.append(everything(metrics))
        same(*results)


def test_images_come_in_the_order_of_their_numbers() -> None:
    pairs = labelled(1, 4, SIZES)
    for metric in all_metrics(4):
        for number, pair in zip((300, 2, 257, 1), pairs, strict=False):
            metric.update(*pair, [number])
        assert metric.scores().ids.tolist() == [1, 2, 257, 300]


def test_an_image_given_twice_is_refused(refuses: Any) -> None:
    (pair,) = labelled(0, 3, SIZES[:1])
    for metric in all_metrics(3):
        metric.update(*pair, [4])
        metric.scores()
        metric.update(*pair, [4])
        with refuses("image 4", "more than once", "255"):
            metric.scores()


def test_numbers_are_checked(refuses: Any) -> None:
    (pair,) = labelled(0, 3, SIZES[:1])
    for metric in all_metrics(3):
        for ids in ([], [1, 2], [-1]):
            with refuses(f"ids are {ids} for 1 images"):
                metric.update(*pair, ids)
        assert not len(metric.scores().ids)


def test_images_of_ignored_pixels_do_not_count() -> None:
    (pair,) = labelled(0, 3, SIZES[:1])
    for metric in all_metrics(3):
        metric.update(*pair, [0])
        metric.update(pair[0], torch.full_like(pair[1], 255), [1])
        assert metric.scores().ids.tolist() == [0]


def test_an_image_without_boundaries_counts_in_every_metric() -> None:
    """So that all have the same images, and runs can be compared image by image."""
    plain = torch.zeros(1, 8, 8, dtype=torch.int64)
    for metric in all_metrics(3):
        metric.update(plain, plain, [7])
        assert metric.scores().ids.tolist() == [7]


def test_reset_forgets_images() -> None:
    (pair,) = labelled(0, 3, SIZES[:1])
    for metric in all_metrics(3):
        metric.update(*pair, [0])
        metric.reset()
        assert not len(metric.scores().ids)


# Counts and intervals


def test_the_images_add_up_to_the_matrix() -> None:
    metric = SegmentationScores(3, per_image=True)
    for index, pair in enumerate(labelled(2, 3, SIZES)):
        metric.update(*pair, [index])
    scores = metric.scores()
    assert scores.images is not None
    total = scores.images.total()
    np.testing.assert_array_equal(total.rows, scores.counts.rows)
    np.testing.assert_array_equal(total.hits, np.diag(scores.confusion))
    np.testing.assert_array_equal(total.truth, scores.confusion.sum(1))
    np.testing.assert_array_equal(total.predicted, scores.confusion.sum(0))


def test_resampling_is_that_of_a_loop() -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(1, 50, (2, 6, 3))
    images = Counts(np.minimum(truth, predicted) // 2, truth, predicted)
    draws = resample(6, lambda weights: weights, 40, 1)
    assert draws.shape == (40, 6) and (draws.sum(1) == 6).all() and len(np.unique(draws, axis=0)) > 30
    drawn = images.resampled(40, 1)
    for at, weights in enumerate(draws.astype(int)):
        chosen = np.repeat(np.arange(6), weights)
        by_hand = Counts(images.hits[chosen], images.truth[chosen], images.predicted[chosen]).total()
        for name in ("miou", "iou", "accuracy", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"):
            np.testing.assert_array_equal(getattr(drawn, name)[at], getattr(by_hand, name))


def test_boundary_resampling_is_that_of_a_loop() -> None:
    metric = BoundaryScores(4, (1, 2))
    for index, pair in enumerate(labelled(3, 4, SIZES)):
        pair[1][pair[1] == index % 4] = 0  # classes are missing from images
        pair[0][pair[0] == index % 4] = 0
        metric.update(*pair, [index])
    scores = metric.scores()
    assert np.isnan(scores.per_image).any()
    np.testing.assert_allclose(mean_of_present(scores.per_image, 0), scores.f, rtol=1e-12)
    draws = resample(len(SIZES), lambda weights: weights, 30, 0)
    for f, weights in zip(scores.resampled(30, 0), draws.astype(int), strict=True):
        chosen = scores.per_image[np.repeat(np.arange(len(SIZES)), weights)]
        np.testing.assert_allclose(f, mean_of_present(chosen, 0), rtol=1e-12)


def test_intervals_are_those_of_scoring_drawn_images_anew() -> None:
    pairs, resamples = labelled(5, 4, SIZES), 20
    for prediction, truth in pairs[1:]:  # class 3 is in one image, which some draws have not
        truth[truth == 3] = 0
        prediction[prediction == 3] = 0
    metrics = all_metrics(4)
    for index in range(len(pairs)):
        add(metrics, pairs, [index], True)
    drawn: dict[str, list[Any]] = {}
    for chosen in np.random.default_rng(0).integers(len(pairs), size=(resamples, len(pairs))):
        again = all_metrics(4)
        for index in chosen:
            add(again, pairs, [index], False)
        scores, boundary, boundary_iou = (metric.scores() for metric in again)
        values = {name: getattr(scores, name) for name in MEASURES}
        values |= {"boundary_f": list(boundary.mean.values()), "boundary_f_mean": boundary.mean_over_distances}
        values["boundary_iou"] = boundary_iou.mean
        for name, value in values.items():
            drawn.setdefault(name, []).append(value)
    found = intervals(*(metric.scores() for metric in metrics), resamples)
    assert found.keys() == drawn.keys() and np.isnan(drawn["iou"]).any()
    for name, low_high in found.items():
        np.testing.assert_allclose(low_high, np.nanpercentile(drawn[name], [2.5, 97.5], axis=0), rtol=1e-12)


def test_intervals_hold_the_score_and_follow_the_seed() -> None:
    metric = SegmentationScores(3, per_image=True)
    for index, pair in enumerate(labelled(2, 3, SIZES * 4)):
        metric.update(*pair, [index])
    scores = metric.scores()
    assert scores.images is not None
    bounds = scores.images.intervals()
    for name in ("miou", "mean_accuracy", "frequency_weighted_iou", "pixel_accuracy", "iou", "accuracy"):
        low, high = bounds[name]
        assert np.all(low < getattr(scores, name)) and np.all(getattr(scores, name) < high)
    np.testing.assert_array_equal(bounds["iou"], scores.images.intervals()["iou"])
    assert (bounds["miou"] != scores.images.intervals(seed=1)["miou"]).any()
    wide, narrow = (scores.images.intervals(level=level)["miou"] for level in (99, 50))
    assert wide[0] < bounds["miou"][0] < narrow[0] < narrow[1] < bounds["miou"][1] < wide[1]


def test_intervals_cover_as_often_as_they_say() -> None:
    """Pixel accuracy of images that are each right with probability 0.7."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        right = random.binomial(100, np.clip(random.normal(0.7, 0.1, 80), 0, 1))
        truth = np.full((80, 2), 50)
        hits = np.stack([right // 2, right - right // 2], 1)
        low, high = Counts(hits, truth, truth).intervals(200)["pixel_accuracy"]
        covered += int(low <= 70 <= high)
    assert 180 <= covered <= 199  # 190 are expected


def test_intervals_are_numpys_percentiles() -> None:
    values = np.random.default_rng(0).normal(size=(37, 2, 3))
    values[5:20, 0, 1] = np.nan
    values[:, 1, 2] = np.nan
    low, high = interval(values, 90)
    for at in np.ndindex(2, 3):
        present = values[(slice(None), *at)]
        present = present[~np.isnan(present)]
        expected = np.percentile(present, [5, 95]) if len(present) else [math.nan] * 2
        np.testing.assert_allclose([low[at], high[at]], expected, rtol=1e-12)


def test_two_runs_on_the_same_images_are_drawn_alike() -> None:
    """A difference of scores thus has a narrower interval."""
    pairs = labelled(4, 3, SIZES * 3)
    runs: list[Counts] = []
    for flip in (False, True):
        metric = SegmentationScores(3, per_image=True)
        for index, (prediction, truth) in enumerate(pairs):
            better = prediction.clone()
            better[..., :2] = torch.where(truth == 255, 0, truth)[..., :2] if flip else better[..., :2]
            metric.update(better, truth, [index])
        images = metric.scores().images
        assert images is not None
        runs.append(images)
    first, second = (images.resampled(500) for images in runs)
    difference = interval(second.miou - first.miou)
    other = runs[1].resampled(500, seed=1)  # draws of its own
    assert difference[0] > 0 and np.ptp(difference) < 0.6 * np.ptp(interval(other.miou - first.miou))


def test_impossible_bootstraps(refuses: Any) -> None:
    one = Counts(*np.ones((3, 1, 2), np.int64))
    with refuses("1 images", "at least 2"):
        one.intervals()
    two = Counts(*np.ones((3, 2, 2), np.int64))
    with refuses("resamples is 0"):
        two.intervals(0)
    with refuses("level is 100"):
        two.intervals(level=100)


def test_mean_accuracy_and_frequency_weighted_iou() -> None:
    confusion = np.array([[6, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    confusion[0, 2] = 2  # class 2 is predicted only, class 3 not at all
    counts = Counts(np.diag(confusion), confusion.sum(1), confusion.sum(0))
    np.testing.assert_allclose(counts.accuracy, [60, 50, math.nan, math.nan])
    np.testing.assert_allclose(counts.iou, [100 * 6 / 11, 25, 0, math.nan])
    assert counts.mean_accuracy == pytest.approx(55)
    assert counts.frequency_weighted_iou == pytest.approx((10 * 600 / 11 + 2 * 25) / 12)


def test_strays_in_the_prediction_are_named(refuses: Any) -> None:
    metric = SegmentationScores(5)
    truth = torch.tensor([[0, 255, 3]])
    for stray in (-1, 5, 255):
        with refuses(f"the prediction holds value {stray}", "0 to 4"):
            metric.update(torch.tensor([[1, 2, stray]]), truth)
    metric.update(torch.tensor([[1, -7, 3]]), truth)  # where the truth is ignored, all is right
    with refuses("the truth holds value -1"):
        metric.update(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, -1]]))
    with refuses("one shape", "(1, 2)"):
        metric.update(torch.tensor([[1, 2]]), truth)
    assert int(metric.compute().sum()) == 2


def test_names_with_brackets_are_shown_as_they_are() -> None:
    metric = SegmentationScores(2)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    labels = LabelSet(("[bold]road", "sky [/]"), ((0, 0, 0), (1, 1, 1)))
    console = Console(record=True, file=io.StringIO())
    console.print(score_table(labels, {"IoU": metric.scores()}))
    shown = console.export_text()
    assert "[bold]road" in shown and "sky [/]" in shown


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint16, torch.uint32, torch.uint64])
def test_integers_of_all_widths(dtype: torch.dtype, refuses: Any) -> None:
    """255 is no int8: there, -1 must not be taken for it, nor a number of classes for a negative one."""
    prediction, truth = torch.randint(5, (2, 1, 12, 15))
    for metric, usual in zip(all_metrics(200), all_metrics(200), strict=True):
        metric.update(prediction.to(dtype), truth.to(dtype), [0])
        usual.update(prediction, truth, [0])
        torch.testing.assert_close(metric.compute(), usual.compute(), rtol=0, atol=0, equal_nan=True)
    stray = truth.clone()
    stray[0, 3, 4] = -1 if dtype == torch.int8 else 120
    for metric in all_metrics(5):
        with refuses(f"the truth holds value {stray[0, 3, 4]}"):
            metric.update(prediction.to(dtype), stray.to(dtype))


def test_the_table_shows_intervals() -> None:
    metrics = all_metrics(3)
    for index, pair in enumerate(labelled(0, 3, SIZES)):
        for metric in metrics:
            metric.update(*pair, [index])
    scores, boundary, boundary_iou = (metric.scores() for metric in metrics)
    bounds = intervals(scores, boundary, boundary_iou, 50)
    table = score_table(LabelSet.numbered(3), {"IoU": scores}, boundary, boundary_iou, bounds)
    names, values, shown = (list(column.cells) for column in table.columns)
    assert names[3:] == [
        "mIoU",
        "mean accuracy",
        "frequency-weighted IoU",
        "pixel accuracy",
        "boundary F, 1 px",
        "boundary F, 2 px",
        "boundary F, mean",
        "boundary IoU",
    ]
    assert values[3] == f"{scores.miou:.1f}" and values[-1] == f"{boundary_iou.mean:.1f}"
    assert values[-2] == f"{(boundary.mean[1] + boundary.mean[2]) / 2:.1f}"
    expected = [*bounds["iou"].T, bounds["miou"], bounds["mean_accuracy"], bounds["frequency_weighted_iou"]]
    expected += [bounds["pixel_accuracy"], *bounds["boundary_f"].T, bounds["boundary_f_mean"], bounds["boundary_iou"]]
    assert shown == [f"{low:.1f} to {high:.1f}" for low, high in expected]
