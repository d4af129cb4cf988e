"""Scores from one confusion matrix over a whole split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from crispseg.data.base import IGNORE
from crispseg.errors import CrispsegError


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. IoU and accuracies are in percent.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
    """

    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """`(C,)` intersection over union; NaN for a class in neither truth nor prediction."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        iou: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
        return 100 * iou

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
        iou = self.iou
        return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of right pixels; NaN if there are none."""
        total = self.confusion.sum()
        return float(100 * np.trace(self.confusion) / total) if total else float("nan")


class SegmentationScores(Metric):  # type: ignore[misc]
    """Accumulates a confusion matrix; right under distributed evaluation, since matrices add up.

    Args:
        num_classes: classes are 0 to `num_classes - 1`; 255 is ignored.
    """

    is_differentiable = False
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add pixels.

        Args:
            prediction, truth: class ids, integer tensors of one shape; `truth` may hold 255.

        Raises:
            CrispsegError: the truth holds a value that is neither a class nor 255.
        """
        classes = self.num_classes
        pairs = truth.to(torch.int32, copy=True).mul_(classes).add_(prediction)
        # Room for every 8-bit truth: one pass counts, ignores and finds stray values, with no masked copies.
        counts = torch.bincount(pairs.flatten(), minlength=(IGNORE + 1) * classes)
        counts = F.pad(counts, (0, -len(counts) % classes)).view(-1, classes)
        counts[IGNORE] = 0
        if counts[classes:].any():
            stray = int(counts[classes:].sum(1).nonzero()[0]) + classes
            raise CrispsegError(f"the truth holds value {stray}, but classes are 0 to {classes - 1} and 255 is ignored")
        self.confusion += counts[:classes]

    def compute(self) -> Tensor:
        """The `(num_classes, num_classes)` matrix of all pixels so far; `Scores` reads it."""
        return self.confusion

    def scores(self) -> Scores:
        """The scores of all pixels so far, of all processes."""
        return Scores(self.compute().cpu().numpy())
