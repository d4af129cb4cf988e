"""How well predicted boundaries lie on true ones: the boundary F-score.

Perazzi et al.: A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation. CVPR 2016 (measure F), as
Takikawa et al.: Gated-SCNN. ICCV 2019, apply it to classes, at 3, 5, 9 and 12 pixels of Cityscapes images.

- A pixel is on the boundary of class c if it is c and its right, lower or lower right neighbour is not, or the reverse.
  The map is one pixel wide and lies half a pixel towards the origin; the border of the image is no boundary.
- Precision is the share of predicted boundary pixels with a true one within the distance (Euclidean, between pixel
  centres, inclusive); recall is the reverse; F = 2PR / (P + R), all at the image's own size, for each image and class.
- Where only the truth has a boundary of c, precision is 1 and recall 0; where only the prediction has, the reverse.
- Scores are means over images, then over classes.

So does Gated-SCNN's released code, but for two things, by which its numbers are higher:

- An image with no boundary of c in truth and prediction does not count for c; there it counts as F = 1.
- A step from or to an ignored pixel is no boundary, in the truth and in the prediction alike; there, ignored pixels are
  "not c" in both, so that their outlines are boundaries which every good prediction finds. Where masks draw ignored
  lines between all objects, as PASCAL VOC's do, little is thus left to score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from crispseg.data.base import IGNORE
from crispseg.errors import CrispsegError

DISTANCES = (3, 5, 9, 12)
"""Pixels, as in the tables of Gated-SCNN and DDSM."""


@dataclass(frozen=True)
class BoundaryF:
    """Boundary scores in percent, for each distance and class; NaN for a class without any boundary.

    Args:
        distances: `D` distances in pixels.
        precision, recall, f: `(D, C)`, means over the images that count for the class.
        images: `(C,)`, how many these are.
    """

    distances: tuple[int, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f: NDArray[np.float64]
    images: NDArray[np.int64]

    @property
    def mean(self) -> dict[int, float]:
        """Distance → mean F over the classes that have boundaries; NaN if none has."""
        counts = self.images > 0
        means = self.f[:, counts].mean(1) if counts.any() else np.full(len(self.distances), np.nan)
        return dict(zip(self.distances, means.tolist(), strict=True))


class BoundaryScores(Metric):  # type: ignore[misc]
    """Accumulates boundary scores; right under distributed evaluation, since sums over images add up.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        distances: within which boundaries match, whole pixels.

    Raises:
        CrispsegError: another number of classes; a distance that is no positive whole number, a repeated one, or none.
    """

    is_differentiable = False
    full_state_update = False
    sums: Tensor
    images: Tensor

    def __init__(self, num_classes: int, distances: Sequence[int] = DISTANCES) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
            raise CrispsegError(f"num_classes is {num_classes!r}; 2 to 255 classes are possible")
        whole = all(isinstance(distance, int) and distance >= 1 for distance in distances)
        if not whole or not 0 < len(distances) == len(set(distances)):
            raise CrispsegError(f"distances are {list(distances)}; give different whole numbers of pixels, at least 1")
        self.num_classes = num_classes
        self.distances = tuple(distances)
        sums = torch.zeros(3, len(self.distances), num_classes, dtype=torch.float64)  # of precision, recall, F
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add images. The work is done on the CPU.

        Args:
            prediction, truth: class ids `(N, H, W)`, integers. `truth` may hold 255; the prediction there is ignored.

        Raises:
            CrispsegError: shapes that differ or are not `(N, H, W)`; no integers; a value that is neither a class nor
                ignored.
        """
        if prediction.shape != truth.shape or truth.ndim != 3:
            raise CrispsegError(
                f"prediction and truth must both be (N, H, W), not {tuple(prediction.shape)} and {tuple(truth.shape)}"
            )
        for name, labels in (("truth", truth), ("prediction", prediction)):
            if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
                raise CrispsegError(f"the {name} is {labels.dtype}; class ids are integers, such as logits.argmax(1)")
        ignored = truth == IGNORE
        prediction = prediction.long().masked_fill(ignored, IGNORE)
        for name, labels in (("truth", truth), ("prediction", prediction)):
            stray = labels[((labels < 0) | (labels >= self.num_classes)) & ~ignored]
            if len(stray):
                raise CrispsegError(
                    f"the {name} holds value {int(stray[0])}, but classes are 0 to {self.num_classes - 1}"
                )
        sums, images = np.zeros(self.sums.shape), np.zeros(self.num_classes, np.int64)
        pairs = torch.stack([prediction, truth], 1).to("cpu", torch.uint8).numpy()  # (N, 2, H, W)
        for predicted, true in pairs:
            for index, found, wanted in _boundaries(predicted, true):
                precision = _matched(found, wanted, self.distances)
                recall = _matched(wanted, found, self.distances)
                total = precision + recall
                f = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
                sums[:, :, index] += precision, recall, f
                images[index] += 1
        self.sums += torch.from_numpy(sums).to(self.sums)
        self.images += torch.from_numpy(images).to(self.images)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Precision, recall and F in percent, `(3, D, num_classes)`, and the images that count for a class."""
        return 100 * self.sums / self.images, self.images  # 0 / 0 is the NaN of a class without boundaries

    def scores(self) -> BoundaryF:
        """The scores of all images so far, of all processes."""
        means, images = (values.cpu().numpy() for values in self.compute())
        precision, recall, f = means
        return BoundaryF(self.distances, precision, recall, f, images)


def _boundaries(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Each class with a boundary in one of two label maps `(H, W)`, and its two boundary maps, cropped alike."""
    steps = _steps(prediction), _steps(truth)
    for index in np.unique(np.concatenate([classes for classes, _ in steps])).tolist():
        points = [places[:, classes == index] for classes, places in steps]
        both = np.concatenate(points, axis=1)
        first, last = both.min(1, keepdims=True), both.max(1, keepdims=True)
        found, wanted = np.zeros((2, *(last - first + 1).ravel()), np.uint8)
        found[tuple(points[0] - first)] = 1
        wanted[tuple(points[1] - first)] = 1
        yield index, found, wanted


def _steps(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Classes `(S,)` and places `(2, S)`, y and x, of pixels from which a class begins or ends; some occur twice."""
    height, width = labels.shape
    classes, places = [], []
    for down, right in ((0, 1), (1, 0), (1, 1)):
        here, there = labels[: height - down, : width - right], labels[down:, right:]
        place = np.array(np.nonzero((here != there) & (here != IGNORE) & (there != IGNORE)))
        classes += [here[tuple(place)], there[tuple(place)]]
        places += [place, place]
    return np.concatenate(classes), np.concatenate(places, axis=1)


def _matched(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], distances: Sequence[int]) -> NDArray[np.float64]:
    """`(D,)`: share of our boundary pixels with one of theirs within each distance; 1 without ours."""
    if not ours.any():
        return np.ones(len(distances))
    if not theirs.any():
        return np.zeros(len(distances))
    away = cv2.distanceTransform(1 - theirs, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[ours > 0]  # to the nearest zero
    # Squared distances are whole numbers; half of one is room for float32's rounding.
    matched: NDArray[np.float64] = (np.square(away) < np.square(distances, dtype=np.float64)[:, None] + 0.5).mean(1)
    return matched
