"""Scores of single objects: object F1, and the Data Science Bowl's score. docs/quality.md defines both.

Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 2019.

IoU thresholds are at least 0.5, so no object matches two others and the matching is unique.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.evaluation.bootstrap import ImageScores, Values, ratio
from crispseg.evaluation.scores import PerImageMetric
from crispseg.inference.objects import ObjectRule
from crispseg.labels import IGNORE

PERCENT = tuple(range(50, 100, 5))  # IoU thresholds in percent


@dataclass(frozen=True)
class ObjectQuality(ImageScores):
    """Scores of objects in percent.

    Args:
        hits: matches in each image at each threshold of `PERCENT`, `(N, T)`.
        predicted, truth: number of objects in each image, `(N,)`.
    """

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    ids: NDArray[np.int64] = field(repr=False)

    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """Return F1, precision and recall at IoU 0.5, and `object_ap`, also for each threshold `(T,)`.

        Without objects, they are NaN.
        """
        weights = np.ones(len(self.ids)) if weights is None else weights
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
        super().__init__(num_classes, len(PERCENT) + 2)
        self.rule = rule
        self.true_rule = replace(rule, min_size=rule.min_size or 0)  # the truth has no fragments

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return the result of `matches`, `(T + 2,)`."""
        prediction, truth, *instances = maps
        true = np.where(truth == IGNORE, 0, instances[0]) if instances else self.true_rule.find(truth)
        return matches(self.rule.find(prediction), true)

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> ObjectQuality:
        return ObjectQuality(rows[:, : len(PERCENT)], rows[:, -2], rows[:, -1], ids)


def matches(predicted: NDArray[np.integer], true: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count the matches at `PERCENT` and the objects of two maps of object numbers `(H, W)`, 0 for none: `(T + 2,)`."""
    areas = np.bincount(predicted.ravel()), np.bincount(true.ravel())
    both = (predicted > 0) & (true > 0)
    base = np.int64(len(areas[1]))
    pairs, shared = np.unique(predicted[both] * base + true[both], return_counts=True)
    one, other = np.divmod(pairs, base)
    union = areas[0][one] + areas[1][other] - shared
    hits = (100 * shared[:, None] > union[:, None] * PERCENT).sum(0)
    return np.array([*hits, *(np.count_nonzero(area[1:]) for area in areas)])
