"""Boundary F-score and Boundary IoU: agreement of predicted and true boundaries. docs/quality.md defines both.

- Boundary F-score: Perazzi et al.: A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation. CVPR
  2016 (measure F). Takikawa et al.: Gated-SCNN. ICCV 2019 (classes, at 3, 5, 9 and 12 pixels of Cityscapes images).
- Boundary IoU: Cheng et al.: Boundary IoU: Improving Object-Centric Image Segmentation Evaluation. CVPR 2021, and its
  released code, https://github.com/bowenc0221/boundary-iou-api.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.evaluation.scores import Counts, PerImageMetric
from crispseg.labels import IGNORE

TOLERANCES = (1, 2, 3, 5, 9, 12)  # distances of the curve on a page
DISTANCES = (3, 5, 9, 12)  # distances in pixels, as in the tables of Gated-SCNN and DDSM

Empty: TypeAlias = Literal["1", "skip"]  # score of an image without any boundary of a class: F = 1, or left out


@dataclass(frozen=True)
class BoundaryF(ImageScores):
    """Boundary scores in percent, for each distance and class; NaN for a class without any boundary.

    `measures` are `boundary_f` `(D,)`, `boundary_f_of_classes` `(D, C)` and `boundary_f_mean` `()` over distances.

    Args:
        distances: `D` distances in pixels.
        per_image: F of each image, `(N, D, C)`; NaN if the image does not count for the class.
    """

    distances: tuple[int, ...]
    per_image: NDArray[np.float64] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        counted = ~np.isnan(self.per_image)  # (N, D, C)
        values = np.where(counted, self.per_image, 0)
        f = ratio(np.tensordot(weights, values, 1), np.tensordot(weights, counted.astype(np.float64), 1))
        mean = mean_of_present(f)
        return {"boundary_f": mean, "boundary_f_of_classes": f, "boundary_f_mean": mean.mean(-1)}


class BoundaryScores(PerImageMetric[BoundaryF]):
    """Accumulate boundary scores.

    Args:
        distances: distances within which boundaries match, in whole pixels.
        empty: whether an image counts as F = 1 for a class without a boundary in truth and prediction, or is left out.

    Raises:
        CrispsegError: the number of classes is invalid; distances are empty, repeated or not positive whole numbers.
    """

    def __init__(self, num_classes: int, distances: Sequence[int] = DISTANCES, empty: Empty = "skip") -> None:
        whole = all(isinstance(distance, int) and distance >= 1 for distance in distances)
        if not whole or not 0 < len(distances) == len(set(distances)):
            raise CrispsegError(f"distances are {list(distances)}; give different whole numbers of pixels, at least 1")
        super().__init__(num_classes, 2 * (len(distances) + 1) * num_classes)
        self.distances, self.empty = tuple(distances), empty

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return pixel counts `(2 * (1 + D) * C,)`: all boundary pixels of the prediction, and those with a true one
        within each distance; then the same for the truth.
        """
        reach = max(self.distances) + 1
        predicted, true = (_boundary(labels) * (reach, 1, 1) for labels in maps)  # classes are out of reach
        counts = []
        for ours, theirs in ((predicted, true), (true, predicted)):
            away, _ = KDTree(theirs).query(ours, distance_upper_bound=reach)
            matched = (ours[away <= distance] for distance in self.distances)
            counts += [np.bincount(points[:, 0] // reach, minlength=self.num_classes) for points in (ours, *matched)]
        return np.concatenate(counts)

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> BoundaryF:
        shape = len(rows), 2, 1 + len(self.distances), self.num_classes
        points = rows.reshape(shape)  # (N, found and true, 1 + D, C)
        every, matched = points[:, :, :1], points[:, :, 1:]
        shares = np.divide(matched, every, out=np.ones(matched.shape), where=every > 0)
        precision, recall = shares[:, 0], shares[:, 1]  # (N, D, C)
        f = np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=recall > 0)
        f = np.where(every.any(1), 100 * f, 100 if self.empty == "1" else np.nan)
        return BoundaryF(self.distances, f, ids)


def _boundary(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return class, row and column of the boundary pixels of all classes, `(P, 3)`."""
    padded = np.pad(labels, (0, 1), constant_values=IGNORE)  # separates the rows
    flat, points = padded.ravel(), []
    for offset in (1, padded.shape[1], padded.shape[1] + 1):  # right, lower and lower-right neighbour
        here, there = flat[:-offset], flat[offset:]
        steps = np.flatnonzero((here != there) & (here != IGNORE) & (there != IGNORE))
        points += [side[steps] * np.int64(flat.size) + steps for side in (here, there)]
    return np.stack(np.unravel_index(np.unique(np.concatenate(points)), (IGNORE, *padded.shape)), axis=1)


DILATION_RATIO = 0.02  # width of the bands as a fraction of the image's diagonal, as in the paper and its code


@dataclass(frozen=True)
class BoundaryIoU(ImageScores):
    """Boundary IoU in percent.

    `measures` are `boundary_iou_of_classes` `(C,)`, NaN for a class without bands, and their mean `boundary_iou` `()`.

    Args:
        images: pixels of bands, `(N, C)`: in both, in the truth, in the prediction.
    """

    images: Counts
    ids: NDArray[np.int64] = field(repr=False)

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        total = self.images.total(weights)
        return {"boundary_iou": total.miou, "boundary_iou_of_classes": total.iou}


class BoundaryIoUScores(PerImageMetric[BoundaryIoU]):
    """Accumulate Boundary IoU.

    Args:
        dilation_ratio: width of the bands, as a fraction of the image's diagonal.
    """

    def __init__(self, num_classes: int, dilation_ratio: float = DILATION_RATIO) -> None:
        super().__init__(num_classes, 3 * num_classes)
        self.dilation_ratio = dilation_ratio

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return pixel counts of bands, `(3 * C,)`: in both, in the truth, in the prediction."""
        width = max(round(self.dilation_ratio * math.hypot(*maps[0].shape)), 1)
        predicted, true = (np.where(band(labels, width), labels, IGNORE) for labels in maps)
        both = np.where(predicted == true, predicted, IGNORE)
        counts = [np.bincount(labels.ravel(), minlength=IGNORE + 1) for labels in (both, true, predicted)]
        return np.concatenate([of_map[: self.num_classes] for of_map in counts])

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> BoundaryIoU:
        return BoundaryIoU(Counts(*np.split(rows, 3, axis=1)), ids)


def band(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Find the pixels of a label map `(H, W)` within `width` (Chebyshev) of another class or of the image's border.

    The largest or smallest class in the square around a pixel differs from its own only if there is another class. Two
    separable filters therefore serve all classes. Ignored pixels, 255, are neither the largest nor the smallest.
    """
    ignored = labels == IGNORE
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * width + 1, 2 * width + 1))
    largest = cv2.dilate(np.where(ignored, np.uint8(0), labels), square)
    smallest = cv2.erode(labels, square)
    near: NDArray[np.bool_] = (largest != labels) | (smallest != labels)
    for edge in (near[:width], near[-width:], near[:, :width], near[:, -width:]):
        edge[:] = True
    near &= ~ignored
    return near
