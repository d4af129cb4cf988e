"""Object F1, the score of the Data Science Bowl, and panoptic quality of single objects. See docs/quality.md.

Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 2019.
Kirillov et al.: Panoptic segmentation. CVPR 2019.

IoU thresholds are at least 0.5, so no object matches two others and the matching is unique.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.evaluation.scores import PerImageMetric, Scores
from crispseg.inference.objects import ObjectRule
from crispseg.labels import IGNORE

PERCENT = tuple(range(50, 100, 5))  # IoU thresholds in percent
IOU_UNIT = 2.0**-40  # unit of sums of IoUs, which are integers


@dataclass(frozen=True)
class ObjectQuality(ImageScores):
    """Scores of objects in percent: F1, precision and recall at IoU 0.5, and AP, also for each threshold `(T,)`.

    Without objects, they are NaN.

    Args:
        hits: matches in each image at each threshold of `PERCENT`, `(N, T)`.
        ious: sum of the IoUs of the matches at 0.5 in each image, `(N,)`.
        predicted, truth: number of objects in each image, `(N,)`.
    """

    hits: NDArray[np.int64]
    ious: NDArray[np.float64]
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    ids: NDArray[np.int64] = field(repr=False)

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        hits, predicted, truth = (weights @ count for count in (self.hits[:, 0], self.predicted, self.truth))
        every = self.predicted + self.truth
        precision = self.hits / np.maximum(every[:, None] - self.hits, 1)
        average = 100 * ratio(weights @ precision, (weights @ (every > 0))[..., None])
        return {
            "object_f1": 100 * ratio(2 * hits, predicted + truth),
            "object_precision": 100 * ratio(hits, predicted),
            "object_recall": 100 * ratio(hits, truth),
            "object_ap": average.mean(-1),
            "object_ap_of_thresholds": average,
        }


class ObjectScores(PerImageMetric[ObjectQuality]):
    """Accumulate scores of the objects of a class.

    After the ids, `update` accepts the numbers of the true objects: integers `(N, H, W)`, 0 for no object. By default
    the rule finds the objects in the truth.

    Args:
        rule: rule that defines the pixels of objects.
    """

    def __init__(self, num_classes: int, rule: ObjectRule) -> None:
        super().__init__(num_classes, len(PERCENT) + 3)
        self.rule = rule
        self.true_rule = replace(rule, min_size=rule.min_size or 0)  # the truth has no fragments

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return the result of `matches`, `(T + 3,)`."""
        prediction, truth, *instances = maps
        true = np.where(truth == IGNORE, 0, instances[0]) if instances else self.true_rule.find(truth)
        return matches(self.rule.find(prediction), true)

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> ObjectQuality:
        return ObjectQuality(
            rows[:, : len(PERCENT)], IOU_UNIT * rows[:, -3].astype(np.float64), rows[:, -2], rows[:, -1], ids
        )


def matches(predicted: NDArray[np.integer], true: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count the matches and the objects of two maps of object numbers `(H, W)`, 0 for none.

    Returns:
        Matches at `PERCENT`, the IoUs of those at 0.5 in units of `IOU_UNIT`, and the objects of each map: `(T + 3,)`.
    """
    areas = np.bincount(predicted.ravel()), np.bincount(true.ravel())
    both = (predicted > 0) & (true > 0)
    base = np.int64(len(areas[1]))
    pairs, shared = np.unique(predicted[both] * base + true[both], return_counts=True)
    predicted_ids, true_ids = np.divmod(pairs, base)
    union = areas[0][predicted_ids] + areas[1][true_ids] - shared
    is_hit = 100 * shared[:, None] > union[:, None] * PERCENT
    steps = np.rint((shared / union)[is_hit[:, 0]] / IOU_UNIT).astype(np.int64).sum()
    return np.array([*is_hit.sum(0), steps, *(np.count_nonzero(area[1:]) for area in areas)])


@dataclass(frozen=True)
class PanopticQuality(ImageScores):
    """Panoptic, segmentation and recognition quality in percent: means over the classes with segments, and PQ of each.

    Segments are the objects of a class, and in each image all pixels of each other class.
    `torchmetrics.detection.PanopticQuality` takes six seconds for a million pixels. Here the matches of objects and the
    pixel counts of images, which are known already, give the same numbers for masks without ignored pixels.

    Args:
        counts: sum of the matches' IoUs, number of matches, of predicted and of true segments, `(N, 4, C)`.
    """

    counts: NDArray[np.float64]
    ids: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, scores: Scores, objects: ObjectQuality, rule: ObjectRule) -> PanopticQuality:
        """Compute the counts; pixels of the border class that are in no object are of no segment."""
        images = scores.images
        iou = images.iou / 100
        is_hit = iou > 0.5
        counts = np.stack([np.where(is_hit, iou, 0), is_hit, images.predicted > 0, images.truth > 0], axis=1)
        counts[..., rule.index] = np.stack([objects.ious, objects.hits[:, 0], objects.predicted, objects.truth], axis=1)
        if rule.border is not None:
            counts[..., rule.border] = 0
        return cls(counts, scores.ids)

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        ious, hits, predicted, true = np.moveaxis(np.tensordot(weights, self.counts, 1), -2, 0)
        segments = (predicted + true) / 2
        pq = 100 * ratio(ious, segments)
        sq = 100 * np.where(segments > 0, ious / np.maximum(hits, 1), np.nan)
        rq = 100 * ratio(hits, segments)
        sq_mean, rq_mean = mean_of_present(sq), mean_of_present(rq)
        return {"pq": mean_of_present(pq), "sq": sq_mean, "rq": rq_mean, "pq_of_classes": pq}
