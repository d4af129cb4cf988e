"""Scores from pixel counts over a whole split, and the base class of all metrics.

The state of a metric is a row of integers for each image. Integer sums and a fixed order of rows make scores exactly
the same for any number of processes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores, Values, mean_of_present, ratio
from crispseg.labels import IGNORE

UNNUMBERED = -1  # number of an image without a given number

Maps: TypeAlias = Tensor | NDArray[Any]
S = TypeVar("S", bound=ImageScores)


class PerImageMetric(Metric, Generic[S]):  # type: ignore[misc]
    """Metric whose state is a row of integers for each image.

    Distributed evaluation gathers the rows of all processes; their shares may be uneven or empty. Rows are sorted by
    the images' numbers, or by content for images without one, so the order of processes makes no difference.

    Args:
        num_classes: 2 to 255, else a `CrispsegError`; classes are 0 to `num_classes - 1`, and 255 is ignored.
        width: length of a row.
    """

    is_differentiable = False
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, num_classes: int, width: int) -> None:
        if not 2 <= num_classes <= IGNORE:
            raise CrispsegError(f"num_classes is {num_classes}; give 2 to {IGNORE}")
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.add_state("rows", [], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; `compute` and `scores` call it."""
        if isinstance(self.rows, list):  # gives a process without images the right shape
            self.rows.append(torch.zeros(0, 1 + self.width, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def update(self, prediction: Maps, truth: Maps, ids: Sequence[int] | None = None, *others: Maps) -> None:
        """Add images. Completely ignored images do not count, because loaders pad the shares of processes with them.

        Args:
            prediction, truth: integer class ids `(N, H, W)`, tensors or arrays. Pixels with 255 in `truth` are
                ignored.
            ids: numbers of the images in the split.
            others: further maps `(N, H, W)` for `row`.

        Raises:
            CrispsegError: the shapes differ or are not `(N, H, W)`; the values are not integers; a value is neither a
                class nor ignored.
        """
        prediction, truth, *further = map(torch.as_tensor, (prediction, truth, *others))
        if prediction.shape != truth.shape or truth.ndim != 3:
            shapes = f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
            raise CrispsegError(f"prediction and truth must have the same shape (N, H, W), not {shapes}")
        ignored, maps = truth.long() == IGNORE, []
        for name, labels in (("prediction", prediction), ("truth", truth)):
            if labels.is_floating_point() or labels.dtype == torch.bool:
                raise CrispsegError(f"the {name} is {labels.dtype}; class ids are integers, such as logits.argmax(1)")
            counted = labels.int().masked_fill(ignored, 0)
            low, high = counted.aminmax()
            if low < 0 or high >= self.num_classes:
                known = f"classes are 0 to {self.num_classes - 1} and {IGNORE} is ignored"
                raise CrispsegError(f"the {name} has value {low if low < 0 else high}, but {known}")
            maps.append(counted.to(torch.uint8).masked_fill_(ignored, IGNORE))
        rows = self.count(*maps, *further)
        numbers = torch.tensor([UNNUMBERED] * len(rows) if ids is None else list(ids))
        counted_rows = torch.cat([numbers[:, None], rows.cpu()], 1)[~ignored.flatten(1).all(1).cpu()]
        self.rows.append(counted_rows.to(self.device))

    def count(self, *maps: Tensor) -> Tensor:
        """Return the rows `(N, width)` of images from their maps, `(N, H, W)` each; see `row`."""
        images = zip(*(of_images.cpu().numpy() for of_images in maps), strict=True)
        return torch.from_numpy(np.array([self.row(*of_image) for of_image in images], np.int64))

    def row(self, *maps: NDArray[Any]) -> NDArray[np.int64]:
        """Return the row `(width,)` of an image from prediction and truth `(H, W)`; both are 255 at ignored pixels.

        `ObjectScores` also accepts numbers of true objects.
        """
        raise NotImplementedError

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the sorted numbers `(N,)` of all images so far, and their rows `(N, width)`."""
        if not len(self.rows):
            return np.zeros(0, np.int64), np.zeros((0, self.width), np.int64)
        table: NDArray[np.int64] = dim_zero_cat(self.rows).cpu().numpy()
        table = table[np.lexsort(table.T[::-1])]  # by number, then by content
        ids = table[:, 0]
        twice = ids[1:][(ids[1:] == ids[:-1]) & (ids[1:] != UNNUMBERED)]
        if len(twice):
            remedy = f"give each once, and pad a process's share with labels that are all {IGNORE}"
            raise CrispsegError(f"image {twice[0]} was given more than once; {remedy}")
        return ids, table[:, 1:]

    def scores(self) -> S:
        """Return the scores of all images so far in all processes; a repeated number raises a `CrispsegError`."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self.scored(*self.table())

    @abstractmethod
    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> S:
        """Return the scores computed from `table`."""

    def compute(self) -> Any:
        """Return the measures of `scores` as tensors, for torchmetrics."""
        return {name: torch.as_tensor(value) for name, value in self.scored(*self.table()).measures().items()}


@dataclass(eq=False)
class Counts:
    """Pixel counts of each class, and the scores computed from them, in percent.

    All scores share the leading axes (images or resamples); without leading axes, means are floats.

    Args:
        hits: correctly predicted pixels of the class, `(..., C)`.
        truth: true pixels of the class, `(..., C)`.
        predicted: pixels predicted as the class, `(..., C)`.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def total(self, weights: NDArray[np.float64]) -> Counts:
        """Sum the counts `(N, C)` of images by their weights, `(N,)` or, for R sums, `(R, N)`."""
        counts = self.hits, self.truth, self.predicted  # integers below 2**53 have exact sums
        return Counts(*((weights @ pixels.astype(np.float64)).astype(np.int64) for pixels in counts))

    @property
    def iou(self) -> Values:
        """Intersection over union `(..., C)`; NaN for a class in neither truth nor prediction."""
        return 100 * ratio(self.hits, self.truth + self.predicted - self.hits)

    @property
    def miou(self) -> Values:
        """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
        return mean_of_present(self.iou)

    @property
    def miou_of_truth(self) -> Values:
        """Mean IoU over the classes that occur in the truth; NaN if there are none. It ranks images, because a few
        wrong pixels of another class do not halve it.
        """
        return mean_of_present(np.where(self.truth > 0, self.iou, np.nan))

    @property
    def accuracy(self) -> Values:
        """Recall `(..., C)`, the fraction of a class's pixels that are correct; NaN for a class not in the truth."""
        return 100 * ratio(self.hits, self.truth)

    @property
    def mean_accuracy(self) -> Values:
        """Mean accuracy over the classes that occur in the truth; NaN if none does."""
        return mean_of_present(self.accuracy)

    @property
    def pixel_accuracy(self) -> Values:
        """Fraction of correct pixels; NaN if there are no pixels."""
        return 100 * ratio(self.hits.sum(-1), self.truth.sum(-1))

    @property
    def frequency_weighted_iou(self) -> Values:
        """Mean IoU, weighted by the number of true pixels of each class; NaN if there are none."""
        weighted = self.truth * np.where(self.truth > 0, self.iou, 0)
        return ratio(weighted.sum(-1), self.truth.sum(-1))

    def measures(self) -> dict[str, Values]:
        """Return the scores, except `miou_of_truth`, by name."""
        means = "miou", "mean_accuracy", "frequency_weighted_iou", "pixel_accuracy"
        return {name: getattr(self, name) for name in (*means, "iou", "accuracy")}


class Scores(Counts, ImageScores):
    """Scores from a confusion matrix: the `Counts` of the whole split, `(C,)`, and their scores.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        images: counts `(N, C)` of each image with a counted pixel, for intervals; none by default.
        ids: numbers `(N,)` of these images; -1 for an image without a number.
    """

    def __init__(
        self, confusion: NDArray[np.int64], images: Counts | None = None, ids: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(np.diag(confusion), confusion.sum(1), confusion.sum(0))
        self.confusion = confusion
        self.images = images or Counts(*np.zeros((3, 0, len(confusion)), np.int64))
        self.ids = np.zeros(0, np.int64) if ids is None else ids

    @property
    def basis(self) -> NDArray[np.int64]:
        """True pixels `(N, C)` of each image and class."""
        return self.images.truth

    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        return self.images.total(weights).measures()


class SegmentationScores(PerImageMetric[Scores]):
    """Accumulate a confusion matrix of 2 to 255 classes, and the counts of each image and class for intervals.

    Labels are 0 to `num_classes - 1`, and 255 is ignored. Another number of classes raises a `CrispsegError`.
    """

    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 3 * num_classes)
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def count(self, *maps: Tensor) -> Tensor:
        """Add images to the matrix, and return their rows: hits, truth and prediction."""
        side, counts = IGNORE + 1, []  # the last row and column count ignored pixels in the same pass
        for prediction, truth in zip(*maps, strict=True):
            pairs = truth.to(torch.int32).mul_(side).add_(prediction)
            counts.append(torch.bincount(pairs.flatten(), minlength=side**2).view(side, side))
        matrices = torch.stack(counts)[:, : self.num_classes, : self.num_classes]
        self.confusion += matrices.sum(0)
        return torch.cat([matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)], dim=1)

    def compute(self) -> Tensor:
        """Return the `(num_classes, num_classes)` matrix of all pixels so far; `Scores` reads it."""
        return self.confusion

    def scored(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> Scores:
        return Scores(self.confusion.cpu().numpy().copy(), Counts(*np.split(rows, 3, axis=1)), ids)
