"""Scores from pixel counts over a whole split, and what all metrics share.

That is: checked labels, and a row of whole numbers for each image. Sums of whole numbers, and rows in a fixed order,
make scores exactly the same for any number of processes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.labels import IGNORE

UNNUMBERED = -1
"""The number of an image that was given without one."""

S = TypeVar("S", bound=ImageScores)


class PerImageMetric(Metric, Generic[S]):  # type: ignore[misc]
    """A metric whose state is a row of whole numbers for each image.

    Under distributed evaluation the rows of all processes are gathered; shares may be uneven or empty. Rows are ordered
    by the images' numbers, those without one by their content, so that the order of processes makes no difference.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        numbers: how many a row has for each class.
        others: how many it has beside these.

    Raises:
        CrispsegError: another number of classes.
    """

    is_differentiable = False
    full_state_update = False
    per_image = True
    rows: list[Tensor]

    def __init__(self, num_classes: int, numbers: int, others: int = 0) -> None:
        if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
            raise CrispsegError(f"num_classes is {num_classes!r}; 2 to 255 classes are possible")
        super().__init__()
        self.num_classes = num_classes
        self._width = numbers * num_classes + others
        self.add_state("rows", [], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; `compute` and `scores` call it."""
        if isinstance(self.rows, list):  # of a process without images, torchmetrics would gather another shape
            self.rows.append(torch.zeros(0, 1 + self._width, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def update(self, prediction: Tensor, truth: Tensor, ids: Sequence[int] | None = None) -> None:
        """Add images. Those of which every pixel is ignored do not count: loaders fill up processes' shares with them.

        Args:
            prediction, truth: class ids `(N, H, W)`, integers. `truth` may hold 255; the prediction there is ignored.
            ids: the images' numbers in the split.

        Raises:
            CrispsegError: shapes that differ or are not `(N, H, W)`; no integers; a value that is neither a class nor
                ignored; not one number an image, or a negative one.
        """
        prediction, truth = self.checked(prediction, truth, ids)
        rows = self.count(prediction, truth)
        if rows is not None:
            self.keep(rows, truth, ids)

    def checked(self, prediction: Tensor, truth: Tensor, ids: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Both as integers that can hold 255. Raises as `update` does, but for values."""
        if prediction.shape != truth.shape or (self.per_image and truth.ndim != 3):
            raise CrispsegError(
                f"prediction and truth must be of one shape (N, H, W), not {tuple(prediction.shape)} and "
                f"{tuple(truth.shape)}"
            )
        checked = []
        for name, labels in (("prediction", prediction), ("truth", truth)):
            if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
                raise CrispsegError(f"the {name} is {labels.dtype}; class ids are integers, such as logits.argmax(1)")
            # An int8 would take 255 for -1, and PyTorch hardly has operators for unsigned integers of more bits.
            usual = labels.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
            checked.append(labels if usual else labels.long())
        if ids is not None and (len(ids) != len(truth) or any(number < 0 for number in ids)):
            raise CrispsegError(f"ids are {list(ids)} for {len(truth)} images; give each image a number, 0 or larger")
        return checked[0], checked[1]

    def keep(self, rows: NDArray[np.int64], truth: Tensor, ids: Sequence[int] | None) -> None:
        """Add the rows `(N, numbers)` of images to the state."""
        numbers = [UNNUMBERED] * len(rows) if ids is None else list(ids)
        counted = (truth != IGNORE).flatten(1).any(1).cpu().numpy()
        kept = np.concatenate([np.array(numbers, np.int64)[:, None], rows], axis=1)[counted]
        self.rows.append(torch.from_numpy(kept).to(self.device))

    def count(self, prediction: Tensor, truth: Tensor) -> NDArray[np.int64] | None:
        """`(N, numbers)`, the rows of images; None to keep none."""
        rows = [self.row(*pair) for pair in zip(*self.maps(prediction, truth), strict=True)]
        return np.array(rows, np.int64).reshape(len(truth), self._width)

    def maps(self, prediction: Tensor, truth: Tensor) -> list[NDArray[np.uint8]]:
        """Prediction and truth `(N, H, W)`, both 255 where the truth is ignored. Raises as `update` does of values."""
        ignored = truth == IGNORE
        maps = []
        for name, labels in (("prediction", prediction), ("truth", truth)):
            stray = ((labels < 0) | (labels >= self.num_classes)).logical_and_(~ignored)
            if stray.any():
                raise self.stray(name, labels[stray][0])
            maps.append(labels.to(torch.uint8).masked_fill(ignored, IGNORE).cpu().numpy())
        return maps

    def row(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of an image from its labels `(H, W)`, both 255 where the truth is ignored."""
        raise NotImplementedError

    def stray(self, name: str, value: Tensor) -> CrispsegError:
        """What is said of a label that is none."""
        return CrispsegError(
            f"the {name} holds value {int(value)}, but classes are 0 to {self.num_classes - 1} and {IGNORE} is ignored"
        )

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers `(N,)` of the images so far and their rows `(N, numbers * num_classes)`, in order.

        Raises:
            CrispsegError: two images have the same number.
        """
        if not len(self.rows):
            return np.zeros(0, np.int64), np.zeros((0, self._width), np.int64)
        table: NDArray[np.int64] = dim_zero_cat(self.rows).cpu().numpy()
        table = table[np.lexsort(table.T[::-1])]  # by number, then by content
        ids = table[:, 0]
        twice = ids[1:][(ids[1:] == ids[:-1]) & (ids[1:] != UNNUMBERED)]
        if len(twice):
            raise CrispsegError(
                f"image {twice[0]} was given more than once; give each once, and fill up a process's share with labels "
                f"that are all {IGNORE}"
            )
        return ids, table[:, 1:]

    def scores(self) -> S:
        """The scores of all images so far, of all processes.

        Raises:
            CrispsegError: two images have the same number.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self.scored(*self.table())

    @abstractmethod
    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> S:
        """The scores that follow from `table`."""

    def compute(self) -> Any:
        """The measures of `scores` as tensors, for torchmetrics."""
        return {name: torch.as_tensor(value) for name, value in self.scored(*self.table()).measures().items()}


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
