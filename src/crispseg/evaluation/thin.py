"""Scores of thin structures: IoU and recall by the width of the true object, and clDice.

Shit et al.: clDice, a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation. CVPR 2021, Eq. 1, 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.evaluation.scores import PerImageMetric
from crispseg.labels import IGNORE

BOUNDS = (4, 7, 13)  # smallest width in pixels of each band but the first
WIDTHS = ("1 to 3", "4 to 6", "7 to 12", "13 and more")  # bands of widths in pixels, inclusive


@dataclass(frozen=True)
class ThinQuality(ImageScores):
    """Scores of thin structures in percent.

    `measures` are `iou_of_widths` and `recall_of_widths` `(W,)`, both also with `…_and_classes` `(W, C)`, and if there
    are `names`, `cl_dice` `()` and `cl_dice_of_classes` `(K,)`.

    Args:
        pixels: counts `(N, C, W, 3)` for each image, class and width of `WIDTHS`: true pixels that were found, all
            true pixels, wrongly predicted pixels.
        lines: counts `(N, K, 4)` for each named class: pixels of the prediction's skeleton and those in the truth,
            pixels of the truth's skeleton and those in the prediction.
        names: classes of `lines`.
    """

    pixels: NDArray[np.int64] = field(repr=False)
    lines: NDArray[np.int64] = field(repr=False)
    names: tuple[str, ...]
    ids: NDArray[np.int64] = field(repr=False)

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        counts = np.tensordot(weights, self.pixels.astype(np.float64), 1)  # (..., C, W, 3)
        hits, true, false = np.moveaxis(np.swapaxes(counts, -3, -2), -1, 0)  # (..., W, C)
        recall = 100 * ratio(hits, true)
        iou = np.where(true > 0, 100 * ratio(hits, true + false), np.nan)
        result = {
            "iou_of_widths": mean_of_present(iou),
            "recall_of_widths": mean_of_present(recall),
            "iou_of_widths_and_classes": iou,
            "recall_of_widths_and_classes": recall,
        }
        if self.names:
            predicted, precise, wanted, covered = np.moveaxis(self.lines, -1, 0)  # (N, K)
            counted = (predicted > 0) | (wanted > 0)
            # Dice of a / p and c / w is 2ac / (aw + cp); 0 where one of the two has no line.
            dice = np.nan_to_num(ratio(2 * precise * covered, precise * wanted + covered * predicted))
            every = 100 * ratio(weights @ (dice * counted), weights @ counted.astype(np.float64))
            result |= {"cl_dice": mean_of_present(every), "cl_dice_of_classes": every}
        return result


class ThinScores(PerImageMetric[ThinQuality]):
    """Accumulate scores of thin structures.

    Args:
        lines: name and number of the classes whose centre lines are compared.
    """

    def __init__(self, num_classes: int, lines: Sequence[tuple[str, int]] = ()) -> None:
        super().__init__(num_classes, 3 * len(WIDTHS) * num_classes + 4 * len(lines))
        self.lines = tuple(lines)

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return the counts of `ThinQuality`, `(3 * W * C + 4 * K,)`."""
        prediction, truth = maps
        pixels = np.zeros((self.num_classes, len(WIDTHS), 3), np.int64)
        present = np.bincount(np.concatenate([prediction, truth]).ravel(), minlength=IGNORE + 1)
        for index in np.flatnonzero(present[:IGNORE]):
            pixels[index] = _counts(prediction == index, truth == index)
        lines = []
        for _, line in self.lines:
            predicted, true = prediction == line, truth == line
            for skeleton, other in ((skeletonize(predicted), true), (skeletonize(true), predicted)):
                lines += [skeleton.sum(), (skeleton & other).sum()]
        return np.concatenate([pixels.ravel(), np.array(lines, np.int64)])

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> ThinQuality:
        split = self.num_classes * len(WIDTHS) * 3
        pixels = rows[:, :split].reshape(len(rows), self.num_classes, len(WIDTHS), 3)  # (N, C, W, 3)
        lines = rows[:, split:].reshape(len(rows), len(self.lines), 4)  # (N, K, 4)
        return ThinQuality(pixels, lines, tuple(name for name, _ in self.lines), ids)


def widths(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the band of `WIDTHS` of each pixel of a structure `(H, W)`; 0 elsewhere."""
    result = np.zeros(mask.shape, np.uint8)
    margin = 2 * max(BOUNDS)
    padded = np.pad(mask.astype(np.uint8), margin, mode="edge")
    for index, width in enumerate(BOUNDS, 1):
        disc, last = _disc(width), width - 1 - width // 2
        filled = cv2.dilate(cv2.erode(padded, disc), disc, anchor=(last, last))
        near = cv2.dilate(filled, _disc(2 * (width // 4) + 1, width / 4))
        result[(near[margin:-margin, margin:-margin] > 0) & mask] = index
    return result


def _disc(side: int, radius: float | None = None) -> NDArray[np.uint8]:
    """Return a disc `(side, side)`: 1 for pixel centres within the radius, which is by default half the side."""
    steps = np.arange(side) - (side - 1) / 2
    radius = side / 2 if radius is None else radius
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)


def _counts(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels of a class in an image, `(W, 3)`; see `ThinQuality`."""
    # For speed, it processes only the rectangle around the class, with a margin of one pixel inside the image.
    left, top, width, height = cv2.boundingRect((predicted | true).astype(np.uint8))
    part = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    predicted, true = predicted[part], true[part]
    band = widths(true if true.any() else predicted)
    false = predicted & ~true
    wrong = band[false]
    if true.any() and false.any():
        others = [(~true | (band != index)).astype(np.uint8) for index in range(len(WIDTHS))]
        away = [cv2.distanceTransform(other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[false] for other in others]
        wrong = np.argmin(away, axis=0)  # a width that does not occur is farther than all others
    counted = band[predicted & true], band[true], wrong
    return np.stack([np.bincount(bands, minlength=len(WIDTHS)) for bands in counted], axis=1)
