"""How well predicted boundaries lie on true ones: the boundary F-score, and Boundary IoU.

Boundary F-score
----------------
Perazzi et al.: A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation. CVPR 2016 (measure F), as
Takikawa et al.: Gated-SCNN. ICCV 2019, apply it to classes, at 3, 5, 9 and 12 pixels of Cityscapes images.

- A pixel is on the boundary of class c if it is c and its right, lower or lower right neighbour is not, or the reverse.
  The border of the image is no boundary.
- Precision is the share of predicted boundary pixels with a true one within the distance (Euclidean, between pixel
  centres, inclusive); recall is the reverse; F = 2PR / (P + R), all at the image's own size, for each image and class.
- Scores are means over images, then over classes. An image with no boundary of c in truth and prediction does not count
  for c by default; in Gated-SCNN's released code, which is Perazzi's, it counts as F = 1.
- A step from or to an ignored pixel is no boundary, in the truth and in the prediction alike. In Gated-SCNN's code
  ignored pixels are "not c" in both, so that their outlines are boundaries which every good prediction finds.

Boundary IoU
------------
Cheng et al.: Boundary IoU: Improving Object-Centric Image Segmentation Evaluation. CVPR 2021, and its released code,
https://github.com/bowenc0221/boundary-iou-api.

|(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|, where G and P are true and predicted mask, and G_d and P_d all pixels
within a distance d of their outlines. The band G_d ∩ G is thus the part of a mask that is near its outline.

- As in the code, d is 2 % of the image's diagonal, rounded, at least 1; distance is Chebyshev's; and the border of the
  image is an outline too.
- A mask is all that is of one class in an image. Intersections and unions are summed over the split, as for IoU; a
  class without any band does not count in the mean.
- Ignored pixels are in no band, and a step to them is no outline, in the truth and in the prediction alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.evaluation.scores import Counts, PerImageMetric
from crispseg.labels import IGNORE

DISTANCES = (3, 5, 9, 12)
"""Pixels, as in the tables of Gated-SCNN and DDSM."""

Empty: TypeAlias = Literal["1", "skip"]
"""What an image is for a class without a boundary in truth and prediction: F = 1, or left out."""


@dataclass(frozen=True)
class BoundaryF(ImageScores):
    """Boundary scores in percent, for each distance and class; NaN for a class without any boundary.

    Args:
        distances: `D` distances in pixels.
        per_image: `(N, D, C)`, F of each image; NaN where it does not count for the class.
    """

    distances: tuple[int, ...]
    per_image: NDArray[np.float64] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)

    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """`boundary_f` `(D,)` over classes, `boundary_f_of_classes` `(D, C)`, `boundary_f_mean` `()` over distances."""
        weights = np.ones(len(self.ids)) if weights is None else weights
        counted = ~np.isnan(self.per_image)  # (N, D, C)
        values = np.where(counted, self.per_image, 0)
        f = ratio(np.tensordot(weights, values, 1), np.tensordot(weights, counted.astype(np.float64), 1))
        mean = mean_of_present(f)
        return {"boundary_f": mean, "boundary_f_of_classes": f, "boundary_f_mean": mean.mean(-1)}


class BoundaryScores(PerImageMetric[BoundaryF]):
    """Accumulates boundary scores.

    Args:
        distances: within which boundaries match, whole pixels.
        empty: whether an image counts as F = 1 for a class without a boundary in truth and prediction, or is left out.

    Raises:
        CrispsegError: another number of classes; a distance that is no positive whole number, a repeated one, or none.
    """

    def __init__(self, num_classes: int, distances: Sequence[int] = DISTANCES, empty: Empty = "skip") -> None:
        whole = all(isinstance(distance, int) and distance >= 1 for distance in distances)
        if not whole or not 0 < len(distances) == len(set(distances)):
            raise CrispsegError(f"distances are {list(distances)}; give different whole numbers of pixels, at least 1")
        super().__init__(num_classes, 2 * (len(distances) + 1) * num_classes)
        self.distances, self.empty = tuple(distances), empty

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """`(2 * (1 + D) * C,)`: boundary pixels, all and those that match, as `_matches` counts them."""
        prediction, truth = maps
        return _matches(prediction, truth, self.num_classes, self.distances).ravel()

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> BoundaryF:
        """F from the matched pixels of each image."""
        shape = len(rows), 2, 1 + len(self.distances), self.num_classes
        points = rows.reshape(shape)  # (N, found and wanted, 1 + D, C)
        every, matched = points[:, :, :1], points[:, :, 1:]
        shares = np.divide(matched, every, out=np.ones(matched.shape), where=every > 0)
        precision, recall = shares[:, 0], shares[:, 1]  # (N, D, C)
        f = np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=recall > 0)
        f = np.where(every.any(1), 100 * f, 100 if self.empty == "1" else np.nan)
        return BoundaryF(self.distances, f, ids)


def _matches(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, distances: Sequence[int]
) -> NDArray[np.int64]:
    """`(2, 1 + D, C)`: boundary pixels of the prediction, all and those with one of the truth within each distance; and
    the reverse.

    Boundaries are kept as sorted numbers of class, row and column, for all classes at once: only boundary pixels cost
    time and memory, however many classes there are.
    """
    height, width = truth.shape
    reach = max(distances)  # rows and columns beyond the image hold nothing, and keep neighbours apart
    shape = classes, height + reach, width + reach
    found, wanted = (_boundary(labels, shape) for labels in (prediction, truth))
    result = np.zeros((2, 1 + len(distances), classes), np.int64)
    for side, (ours, theirs) in zip(result, ((found, wanted), (wanted, found)), strict=True):
        index = ours // (shape[1] * shape[2])
        side[0] = np.bincount(index, minlength=classes)
        away = _nearest(ours, theirs, shape[2], sorted(distances))
        for matched, distance in zip(side[1:], distances, strict=True):
            matched[:] = np.bincount(index[away <= distance**2], minlength=classes)
    return result


def _boundary(labels: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Boundary pixels of all classes in a label map `(H, W)`: sorted indices into an array `(class, row, column)`."""
    padded = np.pad(labels, ((0, 1), (0, 1)), constant_values=IGNORE)
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    places = np.flatnonzero((corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3]))
    here, *neighbours = (corner.ravel()[places] for corner in corners)
    rows, columns = np.divmod(places, labels.shape[1])
    pixels = rows * shape[2] + columns

    steps = [(there != here) & (there != IGNORE) & (here != IGNORE) for there in neighbours]
    starts = steps[0] | steps[1] | steps[2]
    points = [here[starts] * np.int64(shape[1] * shape[2]) + pixels[starts]]
    for at, (there, step) in enumerate(zip(neighbours, steps, strict=True)):
        for before in neighbours[:at]:  # a class ends here once only; `before` is then no ignored one, and a step too
            step = step & (there != before)
        points.append(there[step] * np.int64(shape[1] * shape[2]) + pixels[step])
    return np.sort(np.concatenate(points))


def _nearest(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], stride: int, distances: Sequence[int]
) -> NDArray[np.int64]:
    """Squared distance from each of our pixels to the nearest of theirs of the same class, where it is within the last
    of the `distances`, in ascending order; exact as far as these tell it apart.

    Row by row from our own on, the nearest pixel in a row is next to ours in the sorted list. A pixel is settled when
    what is left of the rows cannot bring it within a smaller distance; most are after a few rows.
    """
    far = np.int64(2**62)
    best = np.full(len(ours), far)
    if not len(theirs):
        return best
    ends = np.concatenate([[-far], theirs, [far]])
    left, points = np.arange(len(ours)), ours
    for down in range(distances[-1] + 1):
        nearest = best[left]
        for row in {-down, down}:
            target = points + row * stride
            at = np.searchsorted(theirs, target)
            beside = np.minimum(ends[at + 1] - target, target - ends[at])
            beside = np.minimum(beside, 2**30)  # its square is a number still
            nearest = np.minimum(nearest, beside * beside + down * down)
        best[left] = nearest
        goal = next((distance for distance in distances if distance > down), None)
        if goal is None:
            break
        open_ = nearest > goal * goal
        left, points = left[open_], points[open_]
        if not len(left):
            break
    return best


DILATION_RATIO = 0.02
"""The bands' width as a part of the image's diagonal, by the paper and its code."""


@dataclass(frozen=True)
class BoundaryIoU(ImageScores):
    """Boundary IoU in percent.

    Args:
        images: `(N, C)` pixels of bands: in both, the truth's, the prediction's.
    """

    images: Counts
    ids: NDArray[np.int64] = field(repr=False)

    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """`boundary_iou_of_classes` `(C,)`, NaN for a class without any band, and their mean, `boundary_iou` `()`."""
        total = self.images.total(weights)
        return {"boundary_iou": total.miou, "boundary_iou_of_classes": total.iou}


class BoundaryIoUScores(PerImageMetric[BoundaryIoU]):
    """Accumulates Boundary IoU.

    Args:
        dilation_ratio: width of the bands, as a part of the image's diagonal.
    """

    def __init__(self, num_classes: int, dilation_ratio: float = DILATION_RATIO) -> None:
        super().__init__(num_classes, 3 * num_classes)
        self.dilation_ratio = dilation_ratio

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """`(3 * C,)` pixels of bands: in both, the truth's, the prediction's."""
        width = max(round(self.dilation_ratio * math.hypot(*maps[0].shape)), 1)
        found, wanted = (np.where(band(labels, width), labels, IGNORE) for labels in maps)
        both = np.where(found == wanted, found, IGNORE)
        counts = [np.bincount(labels.ravel(), minlength=IGNORE + 1) for labels in (both, wanted, found)]
        return np.concatenate([each[: self.num_classes] for each in counts])

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> BoundaryIoU:
        """The bands' pixels of each image."""
        return BoundaryIoU(Counts.of_rows(rows), ids)


def band(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Pixels of a label map `(H, W)` with another class, or the image's border, in the square of `width` around them.

    The largest and the smallest class in the square differ from a pixel's own only if there is another class: two
    separable filters do for all classes at once. Ignored pixels, 255, are neither the largest nor the smallest.
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
