"""Counts of each image: intervals, and several processes."""

import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from separate_processes import PROCESSES
from torch import Tensor

from crispseg.evaluation import BoundaryIoUScores, BoundaryScores, ObjectScores, SegmentationScores
from crispseg.evaluation.bootstrap import Estimate, score_gains
from crispseg.evaluation.summary import Evaluation
from crispseg.inference.objects import ObjectRule
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
        SegmentationScores(classes),
        BoundaryScores(classes, (1, 2)),
        BoundaryIoUScores(classes, 0.05),
        ObjectScores(classes, ObjectRule(1, border=0, reach=1)),
    ]


def updated(
    metrics: list[Any], pairs: list[Pair], numbered: bool = True, batches: list[list[int]] | None = None
) -> list[Any]:
    """The metrics after these batches, by default of one image each."""
    for batch in [[index] for index in range(len(pairs))] if batches is None else batches:
        prediction, truth = (torch.cat(labels) for labels in zip(*(pairs[index] for index in batch), strict=True))
        for metric in metrics:
            metric.update(prediction, truth, batch if numbered else None)
    return metrics


def evaluated(metrics: list[Any], resamples: int) -> Evaluation:
    return Evaluation(
        LabelSet.numbered(metrics[0].num_classes), *(metric.scores() for metric in metrics), resamples=resamples
    )


def everything(metrics: list[Any]) -> list[NDArray[Any]]:
    """All numbers that the metrics give, with intervals."""
    evaluation = evaluated(metrics, 50)
    scores, boundary, objects = evaluation.scores, evaluation.boundary, evaluation.objects
    assert boundary and evaluation.boundary_iou and objects and objects.hits[:, 0].any()
    return [
        scores.confusion,
        *(getattr(scores.images, name) for name in ("hits", "truth", "predicted")),
        boundary.per_image,
        *(getattr(objects, name) for name in ("hits", "predicted", "truth")),
        *(part.ids for part in (scores, boundary, evaluation.boundary_iou, objects)),
        *(np.asarray(estimate.value) for estimate in evaluation.estimates.values()),
        *(estimate.interval for estimate in evaluation.estimates.values()),
    ]


def same(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> None:
    """To the last bit."""
    assert len(ours) == len(theirs)
    for array, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(array, other)


# Several processes


def share(rank: int, processes: int, folder: Path) -> None:
    """What one of several processes sees and writes; one has fewer batches than the other."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    try:
        pairs, batches = labelled(0, 3, SIZES), BATCHES[rank::processes]
        if len(batches) < -(-len(BATCHES) // processes):  # as loaders do, with ignored labels
            pairs.append((pairs[-1][0], torch.full_like(pairs[-1][1], 255)))
            batches.append([len(pairs) - 1])
        metrics = updated(all_metrics(3), pairs, batches=batches)
        with (folder / f"{rank}.pickle").open("wb") as file:
            pickle.dump(([metric.compute() for metric in metrics], everything(metrics)), file)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_several_processes_score_as_one(tmp_path: Path) -> None:
    processes = 2
    workers = [PROCESSES.Process(target=share, args=(rank, processes, tmp_path)) for rank in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * processes
    metrics = updated(all_metrics(3), labelled(0, 3, SIZES), batches=BATCHES)
    alone = everything(metrics)
    assert len(metrics[1].scores().ids) == len(SIZES)
    for rank in range(processes):
        computed, arrays = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        same(arrays, alone)
        for metric, theirs in zip(metrics, computed, strict=True):
            torch.testing.assert_close(theirs, metric.compute(), rtol=0, atol=0, equal_nan=True)


def test_the_order_of_images_makes_no_difference() -> None:
    pairs = labelled(1, 4, SIZES)
    for numbered in (True, False):
        mixed = updated(all_metrics(4), pairs, numbered, [[3], [0], [4], [2], [1]])
        same(everything(updated(all_metrics(4), pairs, numbered)), everything(mixed))


def test_which_images_count(refuses: Any) -> None:
    (pair,) = labelled(0, 3, SIZES[:1])
    plain = torch.zeros(1, 8, 8, dtype=torch.int64)
    for metric in all_metrics(3):
        assert not len(metric.scores().ids)
        metric.update(*pair, [0])
        metric.update(pair[0], torch.full_like(pair[1], 255), [1])  # all ignored
        metric.update(plain, plain, [7])  # without boundaries: so that all metrics have the same images
        assert metric.scores().ids.tolist() == [0, 7]
        metric.update(*pair, [7])
        with refuses("image 7", "more than once", "255"):
            metric.scores()
        metric.reset()
        assert not len(metric.scores().ids)


# Labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_are_integers(dtype: torch.dtype, refuses: Any) -> None:
    labels = torch.ones(1, 3, 4, dtype=torch.int64)
    for metric in all_metrics(5):
        with refuses(f"the prediction is {dtype}", "argmax"):
            metric.update(labels.to(dtype), labels)
        with refuses(f"the truth is {dtype}"):
            metric.update(labels, labels.to(dtype))
        assert not len(metric.scores().ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16])
def test_integers_of_all_widths(dtype: torch.dtype, refuses: Any) -> None:
    """255 is no int8: there, -1 must not be taken for it."""
    prediction, truth = torch.randint(5, (2, 1, 12, 15))
    for metric, usual in zip(all_metrics(200), all_metrics(200), strict=True):
        metric.update(prediction.to(dtype), truth.to(dtype), [0])
        usual.update(prediction, truth, [0])
        torch.testing.assert_close(metric.compute(), usual.compute(), rtol=0, atol=0, equal_nan=True)
    stray = truth.clone()
    stray[0, 3, 4] = -1 if dtype == torch.int8 else 120
    for metric in all_metrics(5):
        with refuses(f"the truth has value {stray[0, 3, 4]}"):
            metric.update(prediction.to(dtype), stray.to(dtype))


def test_stray_values_are_named(refuses: Any) -> None:
    good, bad = torch.zeros(2, 1, 3, 3, dtype=torch.int64)
    ignored = torch.full_like(good, 255)
    for metric in all_metrics(5):
        for stray in (5, 254, 256, -1, 255):
            bad[0, 1, 2] = stray
            with refuses(f"the prediction has value {stray}", "0 to 4", "255"):
                metric.update(bad, good)
            metric.update(bad, ignored)  # there, all is right
            if stray != 255:
                with refuses(f"the truth has value {stray}", "0 to 4"):
                    metric.update(good, bad)
        with refuses("the same shape (N, H, W)"):
            metric.update(good, good[:, 1:])
        assert not len(metric.scores().ids)  # a refused batch leaves no trace


# Counts and intervals


def test_intervals_are_those_of_scoring_drawn_images_anew() -> None:
    pairs, resamples = labelled(5, 4, SIZES), 20
    for prediction, truth in pairs[1:]:  # class 3 is in one image, which some draws have not
        truth[truth == 3] = 0
        prediction[prediction == 3] = 0
    drawn: dict[str, list[Any]] = {}
    for chosen in np.random.default_rng(0).integers(len(pairs), size=(resamples, len(pairs))):
        again = evaluated(updated(all_metrics(4), [pairs[index] for index in chosen], numbered=False), 0)
        for name, estimate in again.estimates.items():
            drawn.setdefault(name, []).append(estimate.value)
    intervals = {
        name: score.interval for name, score in evaluated(updated(all_metrics(4), pairs), resamples).estimates.items()
    }
    assert intervals.keys() == drawn.keys() and np.isnan(drawn["iou"]).any()
    for name, low_high in intervals.items():
        np.testing.assert_allclose(low_high, np.nanpercentile(drawn[name], [2.5, 97.5], axis=0), rtol=1e-12)


def noisy(seed: int, images: int = 6, wrong: float = 0.3) -> tuple[Tensor, Tensor]:
    """Prediction and truth of images with 4 classes, `wrong` of the pixels wrong."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(4, (images, 3, 4), generator=torch.Generator().manual_seed(0))
    truth = truth.repeat_interleave(4, 1).repeat_interleave(4, 2)  # (N, 12, 16)
    noise = torch.randint(4, truth.shape, generator=generator)
    return torch.where(torch.rand(truth.shape, generator=generator) < wrong, noise, truth), truth


def test_gains_are_those_of_resampled_splits() -> None:
    pairs, metrics = [noisy(1, wrong=0.4), noisy(2, wrong=0.3)], (SegmentationScores(4), SegmentationScores(4))
    for pair, metric in zip(pairs, metrics, strict=True):
        metric.update(*pair, ids=range(6))
    first, second = (metric.scores() for metric in metrics)
    gains = score_gains(first, second, resamples=200, seed=3)
    drawn = np.random.default_rng(3).integers(6, size=(200, 6))
    differences = []
    for images in drawn:
        scores = SegmentationScores(4), SegmentationScores(4)
        for metric, (prediction, truth) in zip(scores, pairs, strict=True):
            metric.update(prediction[images], truth[images])
        differences.append(scores[1].scores().miou - scores[0].scores().miou)
    assert gains["miou"].value == pytest.approx(second.miou - first.miou)
    assert gains["miou"].interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert np.ptp(gains["miou"].interval) < 2 * np.ptp(second.estimates(200)["miou"].interval)


@pytest.mark.parametrize(("interval", "clear"), [((1, 2), True), ((-2, -1), True), ((-1, 2), False)])
def test_a_gain_is_clear_if_its_interval_leaves_out_0(interval: tuple[float, float], clear: bool) -> None:
    assert bool(Estimate(np.array(1.0), np.array(interval, float), gain=True).is_clear) is clear


def test_gains_need_the_same_images_and_masks(refuses: Any) -> None:
    """Two runs number their own val images alike."""
    prediction, truth = noisy(1)
    scores = []
    for true, ids in ((truth, range(6)), (truth, range(1, 7)), (torch.where(truth == 3, 0, truth), range(6))):
        metric = SegmentationScores(4)
        metric.update(prediction, true, ids=ids)
        scores.append(metric.scores())
    for other in scores[1:]:
        with refuses("for different images or masks"):
            score_gains(scores[0], other)
