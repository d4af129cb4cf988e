"""How well predicted masks agree along their outlines: Boundary IoU.

Cheng et al.: Boundary IoU: Improving Object-Centric Image Segmentation Evaluation. CVPR 2021, and its released code,
https://github.com/bowenc0221/boundary-iou-api.

|(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|, where G and P are true and predicted mask, and G_d and P_d all pixels
within a distance d of their outlines. The band G_d ∩ G is thus the part of a mask that is near its outline.

- As in the code, d is 2 % of the image's diagonal, rounded, at least 1; distance is Chebyshev's, as d erosions by 3×3
  pixels measure it: a pixel is in the band if the (2d + 1)² square around it holds something else than its mask.
- As there, the border of the image is an outline too.
- The paper scores single masks of things. Here a mask is all that is of one class in an image, and intersections and
  unions are summed over the split, as for IoU; a class without any band does not count in the mean.
- Ignored pixels, which the paper has not, are in no band and outside of no mask: a step to them is no outline, in the
  truth and in the prediction alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values
from crispseg.evaluation.scores import Counts, PerImageMetric
from crispseg.labels import IGNORE

DILATION_RATIO = 0.02
"""The bands' width as a part of the image's diagonal, by the paper and its code."""


@dataclass(frozen=True)
class BoundaryIoU(ImageScores):
    """Boundary IoU in percent.

    Args:
        images: `(N, C)` pixels of bands: in both, the truth's, the prediction's.
        ids: `(N,)` numbers of these images, -1 for those without one.
    """

    images: Counts
    ids: NDArray[np.int64] = field(repr=False)

    @property
    def iou(self) -> NDArray[np.float64]:
        """`(C,)`, of the whole split; NaN for a class without any band."""
        iou: NDArray[np.float64] = self.images.total().iou
        return iou

    @property
    def mean(self) -> float:
        """The mean over the classes with bands; NaN if there are none."""
        return float(self.images.total().miou)

    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """`boundary_iou` `()`, the mean over the classes, and `boundary_iou_of_classes` `(C,)`."""
        total = self.images.total(weights)
        return {"boundary_iou": total.miou, "boundary_iou_of_classes": total.iou}

    @property
    def basis(self) -> list[object]:
        return [*super().basis, self.images.truth.tolist()]


class BoundaryIoUScores(PerImageMetric[BoundaryIoU]):
    """Accumulates Boundary IoU; right under distributed evaluation, by whole numbers for each image.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        dilation_ratio: width of the bands, as a part of the image's diagonal.

    Raises:
        CrispsegError: another number of classes; a ratio that is not above 0 and at most 1.
    """

    def __init__(self, num_classes: int, dilation_ratio: float = DILATION_RATIO) -> None:
        if not 0 < dilation_ratio <= 1:
            raise CrispsegError(f"dilation_ratio is {dilation_ratio}; give a part of the diagonal, such as 0.02")
        super().__init__(num_classes, 3)
        self.dilation_ratio = dilation_ratio

    def row(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
        """`(3 * C,)` pixels of bands: in both, the truth's, the prediction's."""
        width = band_width(truth.shape, self.dilation_ratio)
        found, wanted = (np.where(band(labels, width), labels, IGNORE) for labels in (prediction, truth))
        both = np.where(found == wanted, found, IGNORE)
        counts = [np.bincount(labels.ravel(), minlength=IGNORE + 1) for labels in (both, wanted, found)]
        return np.concatenate([each[: self.num_classes] for each in counts])

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> BoundaryIoU:
        """The bands' pixels of each image."""
        return BoundaryIoU(Counts.of_rows(rows), ids)


def band_width(shape: Sequence[int], dilation_ratio: float = DILATION_RATIO) -> int:
    """Pixels, of an image `(H, W)`."""
    return max(round(dilation_ratio * math.hypot(*shape)), 1)


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
