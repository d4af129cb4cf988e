"""What the metrics share: checked labels, a row of whole numbers for each image, and the bootstrap over images.

Sums of whole numbers, and rows in a fixed order, make scores exactly the same for any number of processes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE

UNNUMBERED = -1
"""The number of an image that was given without one."""

RESAMPLES = 1000
LEVEL = 95.0
"""Percent of the resamples whose score lies within an interval."""

_CHUNK = 2**22  # weights that are in memory at once


class PerImageMetric(Metric):  # type: ignore[misc]
    """A metric whose state is a row of whole numbers for each image.

    Under distributed evaluation the rows of all processes are gathered; shares may be uneven or empty. Rows are ordered
    by the images' numbers, those without one by their content, so that the order of processes makes no difference.
    """

    is_differentiable = False
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width
        self.add_state("rows", [], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; `compute` and `scores` call it."""
        if isinstance(self.rows, list):  # of a process without images, torchmetrics would gather another shape
            self.rows.append(torch.zeros(0, 1 + self._width, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def add_rows(self, rows: NDArray[np.int64], ids: Sequence[int] | None, counted: NDArray[np.bool_]) -> None:
        """Keep the rows `(N, width)` of the images that count, `(N,)`, under their numbers.

        Images of which every pixel is ignored do not count: loaders fill up the shares of processes with them.

        Raises:
            CrispsegError: not as many numbers as rows, or a negative one.
        """
        self._check_ids(ids, len(rows))
        numbers = [UNNUMBERED] * len(rows) if ids is None else list(ids)
        kept = np.concatenate([np.array(numbers, np.int64)[:, None], rows], axis=1)[counted]
        self.rows.append(torch.from_numpy(kept).to(self.device))

    def gathered(self) -> Any:
        """A context in which `table` holds the images of all processes."""
        return self.sync_context(dist_sync_fn=self.dist_sync_fn)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers `(N,)` of the images so far and their rows `(N, width)`, in order.

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

    @staticmethod
    def _check_ids(ids: Sequence[int] | None, images: int) -> None:
        if ids is not None and (len(ids) != images or any(number < 0 for number in ids)):
            raise CrispsegError(f"ids are {list(ids)} for {images} images; give each image a number, 0 or larger")


class LabelMapMetric(PerImageMetric):
    """A metric whose row is counted from the two label maps of an image, on the CPU, by `row`.

    Args:
        num_classes: 2 to 255; classes are 0 to `num_classes - 1`, and 255 is ignored.
        numbers: of a row, for each class.

    Raises:
        CrispsegError: another number of classes.
    """

    def __init__(self, num_classes: int, numbers: int) -> None:
        check_num_classes(num_classes)
        super().__init__(numbers * num_classes)
        self.num_classes = num_classes

    def update(self, prediction: Tensor, truth: Tensor, ids: Sequence[int] | None = None) -> None:
        """Add images.

        Args:
            prediction, truth: class ids `(N, H, W)`, integers. `truth` may hold 255; the prediction there is ignored.
            ids: the images' numbers in the split.

        Raises:
            CrispsegError: shapes that differ or are not `(N, H, W)`; no integers; a value that is neither a class nor
                ignored; not one number an image.
        """
        predictions, truths = byte_labels(prediction, truth, self.num_classes)
        rows = [self.row(*pair) for pair in zip(predictions, truths, strict=True)]
        self.add_rows(np.array(rows, np.int64).reshape(len(truth), self._width), ids, (truths != IGNORE).any((1, 2)))

    @abstractmethod
    def row(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
        """`(numbers * num_classes,)` of an image from its labels `(H, W)`, both 255 where the truth is ignored."""


def check_num_classes(num_classes: int) -> None:
    """Class ids are bytes, and 255 is none of them.

    Raises:
        CrispsegError: another number.
    """
    if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
        raise CrispsegError(f"num_classes is {num_classes!r}; 2 to 255 classes are possible")


def integers(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Class ids, not logits or probabilities; in a type that can hold 255 and that PyTorch can compare.

    An int8 would take 255 for -1, and PyTorch hardly has operators for unsigned integers of more than 8 bits.

    Raises:
        CrispsegError: other numbers than integers.
    """
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise CrispsegError(f"the {name} is {labels.dtype}; class ids are integers, such as logits.argmax(1)")
    usual = torch.uint8, torch.int16, torch.int32, torch.int64
    prediction, truth = (labels if labels.dtype in usual else labels.long() for labels in (prediction, truth))
    return prediction, truth


def byte_labels(prediction: Tensor, truth: Tensor, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Prediction and truth `(N, H, W)` on the CPU as bytes, 255 in both where the truth is ignored.

    Raises:
        CrispsegError: shapes that differ or are not `(N, H, W)`; no integers; a value that is neither a class nor
            ignored.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise CrispsegError(
            f"prediction and truth must both be (N, H, W), not {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    prediction, truth = integers(prediction, truth)
    ignored = truth == IGNORE
    pair = []
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype != torch.uint8:
            stray = ((labels < 0) | (labels >= num_classes)).logical_and_(~ignored)
        else:
            stray = (labels >= num_classes).logical_and_(~ignored)
        if stray.any():
            raise CrispsegError(
                f"the {name} holds value {int(labels[stray][0])}, but classes are 0 to {num_classes - 1}"
            )
        pair.append(labels.to(torch.uint8).masked_fill(ignored, IGNORE).cpu().numpy())
    return pair[0], pair[1]


def resample(
    images: int, statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], resamples: int, seed: int
) -> NDArray[np.float64]:
    """A statistic of as many images drawn with replacement, `resamples` times.

    The draws depend on the number of images and the seed alone. So two runs on the same images, in the same order, are
    resampled alike, and the difference of what this gives for each is a paired bootstrap.

    Args:
        images: how many there are.
        statistic: of weights `(R, images)`, how often each image was drawn → `(R, ...)`.
        resamples: how often.
        seed: of the draws.

    Returns:
        `(resamples, ...)`.

    Raises:
        CrispsegError: fewer than 2 images, no resamples.
    """
    if images < 2:
        raise CrispsegError(f"{images} images have no bootstrap intervals; give at least 2")
    if resamples < 1:
        raise CrispsegError(f"resamples is {resamples}; it must be at least 1, better {RESAMPLES}")
    random = np.random.default_rng(seed)
    values, step = [], max(_CHUNK // images, 1)
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        drawn = random.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)
        values.append(statistic(weights.astype(np.float64)))
    return np.concatenate(values)


def interval(values: NDArray[np.float64], level: float = LEVEL) -> NDArray[np.float64]:
    """`(2, ...)`: the percentiles between which `level` percent of `values` `(R, ...)` lie, without those that are NaN.

    Raises:
        CrispsegError: a level that is not between 0 and 100.
    """
    if not 0 < level < 100:
        raise CrispsegError(f"level is {level}; give percent, between 0 and 100")
    tail = (1 - level / 100) / 2
    ordered = np.sort(values, axis=0)  # NaN last
    last = np.maximum((~np.isnan(values)).sum(0) - 1, 0)
    bounds = []
    for share in (tail, 1 - tail):
        at = share * last
        below = np.floor(at).astype(np.int64)
        low, high = (np.take_along_axis(ordered, np.minimum(i, last)[None], 0)[0] for i in (below, below + 1))
        bounds.append(low + (high - low) * (at - below))
    return np.stack(bounds)


def mean_of_present(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The mean of what is not NaN along an axis; NaN where all is."""
    present = ~np.isnan(values)
    count = present.sum(axis)
    total = np.where(present, values, 0).sum(axis)
    mean: NDArray[np.float64] = ratio(total, count)
    return mean


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """`part / whole`, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient: NDArray[np.float64] = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient
