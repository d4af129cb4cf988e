"""Scores from pixel counts over a whole split, as docs/metrics.md defines them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.evaluation.per_image import PerImageMetric
from crispseg.labels import IGNORE

MEASURES = ("miou", "mean_accuracy", "frequency_weighted_iou", "pixel_accuracy", "iou", "accuracy")
"""The scores of `Counts`."""


@dataclass(eq=False)
class Counts:
    """Pixels of each class, and the scores that follow from them, in percent.

    Leading axes, of images or resamples, are those of all scores; without any, means are floats.

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
        """Counts from rows `(..., 3 * C)`: hits, truth, predicted."""
        return Counts(*np.moveaxis(rows.reshape(*rows.shape[:-1], 3, rows.shape[-1] // 3), -2, 0))

    def total(self, weights: NDArray[np.float64] | None = None) -> Counts:
        """The sums over the first axis, `(N, ...)`; with `weights` `(R, N)`, how often each counts, R of them."""
        counts = self.hits, self.truth, self.predicted
        if weights is None:
            return Counts(*(each.sum(0) for each in counts))
        # Whole numbers below 2**53: sums are exact.
        return Counts(*((weights @ each.astype(np.float64)).astype(np.int64) for each in counts))

    @property
    def iou(self) -> Values:
        """`(..., C)` intersection over union; NaN for a class in neither truth nor prediction."""
        return 100 * ratio(self.hits, self.truth + self.predicted - self.hits)

    @property
    def miou(self) -> Values:
        """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
        return mean_of_present(self.iou)

    @property
    def accuracy(self) -> Values:
        """`(..., C)` share of a class's pixels that are right, its recall; NaN for a class not in the truth."""
        return 100 * ratio(self.hits, self.truth)

    @property
    def mean_accuracy(self) -> Values:
        """Mean accuracy over the classes that occur in the truth; NaN if none does."""
        return mean_of_present(self.accuracy)

    @property
    def pixel_accuracy(self) -> Values:
        """Share of right pixels; NaN if there are none."""
        return 100 * ratio(self.hits.sum(-1), self.truth.sum(-1))

    @property
    def frequency_weighted_iou(self) -> Values:
        """Mean of IoU, weighted by the classes' pixels in the truth; NaN if there are none."""
        weighted = self.truth * np.where(self.truth > 0, self.iou, 0)
        return ratio(weighted.sum(-1), self.truth.sum(-1))


class Scores(Counts, ImageScores):
    """What a confusion matrix says: the `Counts` of the whole split, `(C,)`, and their scores.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        images: `(N, C)`, of each image with a counted pixel, for intervals; of none if they were not kept.
        ids: `(N,)` numbers of these images, -1 for those without one.
    """

    def __init__(
        self, confusion: NDArray[np.int64], images: Counts | None = None, ids: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(np.diag(confusion), confusion.sum(1), confusion.sum(0))
        self.confusion = confusion
        self.images = images or Counts(*np.zeros((3, 0, len(confusion)), np.int64))
        self.ids = np.zeros(0, np.int64) if ids is None else ids

    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """`MEASURES`, and `image_miou`, the mean of the images' own mIoU."""
        counts = self if weights is None else self.images.total(weights)
        own = self.images.miou
        mean = mean_of_present(own) if weights is None else weights @ own / len(own)
        return {name: getattr(counts, name) for name in MEASURES} | {"image_miou": mean}

    @property
    def basis(self) -> list[object]:
        if self.confusion.any() and not len(self.ids):
            raise CrispsegError("gains need the counts of each image; score by SegmentationScores(…, per_image=True)")
        return [*super().basis, self.images.truth.tolist()]


class SegmentationScores(PerImageMetric[Scores]):
    """Accumulates a confusion matrix; right under distributed evaluation, since matrices add up.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        per_image: also keep hits, truth and prediction of each image and class, 24 bytes each, for intervals. Labels
            must then be `(N, H, W)`, else they can have any shape.

    Raises:
        CrispsegError: another number of classes.
    """

    confusion: Tensor

    def __init__(self, num_classes: int, per_image: bool = False) -> None:
        super().__init__(num_classes, 3)
        self.per_image = per_image
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def count(self, prediction: Tensor, truth: Tensor) -> NDArray[np.int64] | None:
        """Add to the matrix; hits, truth and prediction of each image, if they are to be kept."""
        if not truth.numel():
            return None
        low, high = truth.aminmax()
        if int(low) < 0 or int(high) > IGNORE:
            raise self.stray("truth", truth[(truth < 0) | (truth > IGNORE)][0])
        low, high = prediction.aminmax()
        if int(low) < 0 or int(high) >= self.num_classes:
            prediction = prediction.masked_fill(truth == IGNORE, 0)
            strays = prediction[(prediction < 0) | (prediction >= self.num_classes)]
            if len(strays):
                raise self.stray("prediction", strays[0])
        if not self.per_image:
            self.confusion += self._matrix(prediction, truth)
            return None
        matrices = torch.stack([self._matrix(*pair) for pair in zip(prediction, truth, strict=True)])
        self.confusion += matrices.sum(0)
        rows = torch.cat([matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)], dim=1)
        return rows.cpu().numpy()

    def _matrix(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """`(C, C)` of some pixels."""
        classes = self.num_classes
        # Both are made int32 first: sums of two types are ten times as slow.
        pairs = truth.to(torch.int32, copy=True).mul_(classes).add_(prediction.to(torch.int32))
        # Room for every 8-bit truth: one pass counts, ignores and finds stray values, with no masked copies.
        counts = torch.bincount(pairs.flatten(), minlength=(IGNORE + 1) * classes).view(-1, classes)
        counts[IGNORE] = 0
        if counts[classes:].any():
            raise self.stray("truth", counts[classes:].sum(1).nonzero()[0] + classes)
        return counts[:classes]

    def compute(self) -> Tensor:
        """The `(num_classes, num_classes)` matrix of all pixels so far; `Scores` reads it."""
        return self.confusion

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> Scores:
        """What the matrix and the images' counts say."""
        return Scores(self.confusion.cpu().numpy().copy(), Counts.of_rows(rows), ids)
