"""Scores from pixel counts over a whole split, as docs/metrics.md defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.evaluation.per_image import (
    LEVEL,
    RESAMPLES,
    PerImageMetric,
    check_num_classes,
    integers,
    interval,
    mean_of_present,
    ratio,
    resample,
)
from crispseg.labels import IGNORE

MEASURES = ("miou", "mean_accuracy", "frequency_weighted_iou", "pixel_accuracy", "iou", "accuracy")
"""The scores of `Counts`."""


@dataclass(frozen=True)
class Counts:
    """Pixels of each class, and the scores that follow from them, in percent.

    Leading axes, of images or resamples, are those of all scores.

    Args:
        hits: `(..., C)` pixels of the class that are predicted as it.
        truth: `(..., C)` pixels of the class.
        predicted: `(..., C)` pixels predicted as the class.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64]) -> Counts:
        """Of rows `(..., 3 * C)`: hits, truth, predicted."""
        return cls(*np.moveaxis(rows.reshape(*rows.shape[:-1], 3, rows.shape[-1] // 3), -2, 0))

    @property
    def rows(self) -> NDArray[np.int64]:
        """`(..., 3 * C)`; `of_rows` reads it."""
        return np.concatenate([self.hits, self.truth, self.predicted], axis=-1)

    def __len__(self) -> int:
        return len(self.hits)

    def total(self) -> Counts:
        """The sums over the first axis."""
        return Counts(self.hits.sum(0), self.truth.sum(0), self.predicted.sum(0))

    @property
    def iou(self) -> NDArray[np.float64]:
        """`(..., C)` intersection over union; NaN for a class in neither truth nor prediction."""
        return 100 * ratio(self.hits, self.truth + self.predicted - self.hits)

    @property
    def miou(self) -> NDArray[np.float64]:
        """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
        return mean_of_present(self.iou)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(..., C)` share of a class's pixels that are right, its recall; NaN for a class not in the truth."""
        return 100 * ratio(self.hits, self.truth)

    @property
    def mean_accuracy(self) -> NDArray[np.float64]:
        """Mean accuracy over the classes that occur in the truth; NaN if none does."""
        return mean_of_present(self.accuracy)

    @property
    def pixel_accuracy(self) -> NDArray[np.float64]:
        """Share of right pixels; NaN if there are none."""
        return 100 * ratio(self.hits.sum(-1), self.truth.sum(-1))

    @property
    def frequency_weighted_iou(self) -> NDArray[np.float64]:
        """Mean of IoU, weighted by the classes' pixels in the truth; NaN if there are none."""
        weighted = self.truth * np.where(self.truth > 0, self.iou, 0)
        return ratio(weighted.sum(-1), self.truth.sum(-1))

    def resampled(self, resamples: int = RESAMPLES, seed: int = 0) -> Counts:
        """Counts `(resamples, C)` of as many images, drawn with replacement from these, `(N, C)`; see `resample`."""
        rows = self.rows.astype(np.float64)  # whole numbers below 2**53: sums are exact
        drawn = resample(len(self), lambda weights: weights @ rows, resamples, seed)
        return Counts.of_rows(drawn.astype(np.int64))

    def intervals(
        self, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
    ) -> dict[str, NDArray[np.float64]]:
        """Bootstrap intervals over images `(N, C)`: for each of `MEASURES` `(2,)` or `(2, C)`, low and high."""
        drawn = self.resampled(resamples, seed)
        return {name: interval(getattr(drawn, name), level) for name in MEASURES}


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. IoU and accuracies are in percent, as `Counts` defines them.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        images: `(N, C)`, of each image with a counted pixel, for intervals; `None` if they were not kept.
        ids: `(N,)` numbers of these images, -1 for those without one.
    """

    confusion: NDArray[np.int64]
    images: Counts | None = field(default=None, repr=False)
    ids: NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def counts(self) -> Counts:
        """Of the whole split, `(C,)`."""
        return Counts(np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0))

    @property
    def iou(self) -> NDArray[np.float64]:
        """`(C,)` intersection over union; NaN for a class in neither truth nor prediction."""
        return self.counts.iou

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
        return float(self.counts.miou)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(C,)` share of a class's pixels that are right; NaN for a class that is not in the truth."""
        return self.counts.accuracy

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes that occur in the truth; NaN if none does."""
        return float(self.counts.mean_accuracy)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of IoU, weighted by the classes' pixels in the truth; NaN if there are none."""
        return float(self.counts.frequency_weighted_iou)

    @property
    def pixel_accuracy(self) -> float:
        """Share of right pixels; NaN if there are none."""
        return float(self.counts.pixel_accuracy)


class SegmentationScores(PerImageMetric):
    """Accumulates a confusion matrix; right under distributed evaluation, since matrices add up.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        per_image: also keep hits, truth and prediction of each image and class, 24 bytes each, for intervals.

    Raises:
        CrispsegError: another number of classes.
    """

    confusion: Tensor

    def __init__(self, num_classes: int, per_image: bool = False) -> None:
        check_num_classes(num_classes)
        super().__init__(3 * num_classes)
        self.num_classes = num_classes
        self.per_image = per_image
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor, ids: Sequence[int] | None = None) -> None:
        """Add pixels.

        Args:
            prediction, truth: class ids, integer tensors of one shape, with `per_image` `(N, ...)`; `truth` may hold
                255, where the prediction may be anything.
            ids: the images' numbers in the split, for `per_image`.

        Raises:
            CrispsegError: the truth holds a value that is neither a class nor 255, the prediction one that is no class;
                shapes that differ; no integers; not one number an image.
        """
        if prediction.shape != truth.shape:
            raise CrispsegError(
                f"prediction and truth must have one shape, not {tuple(prediction.shape)} and {tuple(truth.shape)}"
            )
        prediction, truth = integers(prediction, truth)
        if not truth.numel():
            return
        low, high = truth.aminmax()
        if int(low) < 0 or int(high) > IGNORE:
            raise self._stray("truth", truth[(truth < 0) | (truth > IGNORE)][0])
        low, high = prediction.aminmax()
        if int(low) < 0 or int(high) >= self.num_classes:
            prediction = self._without_strays(prediction, truth)
        if not self.per_image:
            self.confusion += self._matrix(prediction, truth)
            return
        self._check_ids(ids, len(truth))
        matrices = torch.stack([self._matrix(*pair) for pair in zip(prediction, truth, strict=True)])
        rows = torch.cat([matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)], dim=1).cpu().numpy()
        self.add_rows(rows, ids, rows.sum(1) > 0)
        self.confusion += matrices.sum(0)

    def _matrix(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """`(C, C)` of some pixels."""
        classes = self.num_classes
        # Both are made int32 first: sums of two types are ten times as slow.
        pairs = truth.to(torch.int32, copy=True).mul_(classes).add_(prediction.to(torch.int32))
        # Room for every 8-bit truth: one pass counts, ignores and finds stray values, with no masked copies.
        counts = torch.bincount(pairs.flatten(), minlength=(IGNORE + 1) * classes).view(-1, classes)
        counts[IGNORE] = 0
        if counts[classes:].any():
            raise self._stray("truth", counts[classes:].sum(1).nonzero()[0] + classes)
        return counts[:classes]

    def _without_strays(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The prediction with class 0 where the truth is ignored."""
        prediction = prediction.masked_fill(truth == IGNORE, 0)
        strays = prediction[(prediction < 0) | (prediction >= self.num_classes)]
        if len(strays):
            raise self._stray("prediction", strays[0])
        return prediction

    def _stray(self, name: str, value: Tensor) -> CrispsegError:
        return CrispsegError(
            f"the {name} holds value {int(value)}, but classes are 0 to {self.num_classes - 1} and {IGNORE} is ignored"
        )

    def compute(self) -> Tensor:
        """The `(num_classes, num_classes)` matrix of all pixels so far; `Scores` reads it."""
        return self.confusion

    def scores(self) -> Scores:
        """The scores of all pixels so far, of all processes.

        Raises:
            CrispsegError: two images have the same number.
        """
        with self.gathered():
            confusion = self.confusion.cpu().numpy().copy()
            if not self.per_image:
                return Scores(confusion)
            ids, rows = self.table()
            return Scores(confusion, Counts.of_rows(rows), ids)
