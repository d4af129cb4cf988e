"""What the metrics share: checked labels, a row of whole numbers for each image, and the bootstrap over images.

Sums of whole numbers, and rows in a fixed order, make scores exactly the same for any number of processes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

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

Values: TypeAlias = Any
"""Scores: a float64 array, or a float where there is no axis."""

_CHUNK = 2**22  # weights that are in memory at once


class ImageScores(ABC):
    """Scores of a split that can be computed again for images drawn from it.

    Attributes:
        ids: `(N,)` numbers of the images, -1 for those without one.
    """

    ids: NDArray[np.int64]

    @abstractmethod
    def measures(self, weights: NDArray[np.float64] | None = None) -> dict[str, Values]:
        """Name of each score → its value in percent, of any shape `(...)`.

        With `weights` `(R, N)`, how often each image counts, the values are `(R, ...)`.
        """

    @property
    def basis(self) -> list[object]:
        """What two predictions of the same images have in common: the images' numbers, and what else decides."""
        return [self.ids.tolist()]

    def resampled(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Values]:
        """`measures` of as many images, drawn with replacement from these, `(resamples, ...)`.

        The draws depend on the number of images and the seed alone. So two predictions of the same images are resampled
        alike, and the difference of what this gives for each is a paired bootstrap.

        Raises:
            CrispsegError: fewer than 2 images, no resamples.
        """
        images = len(self.ids)
        if images < 2:
            raise CrispsegError(f"{images} images have no bootstrap intervals; give at least 2")
        if resamples < 1:
            raise CrispsegError(f"resamples is {resamples}; it must be at least 1, better {RESAMPLES}")
        random = np.random.default_rng(seed)
        parts, step = [], max(_CHUNK // images, 1)
        for first in range(0, resamples, step):
            count = min(step, resamples - first)
            drawn = random.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)
            parts.append(self.measures(weights.astype(np.float64)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def intervals(self, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> dict[str, Values]:
        """Bootstrap intervals over images for each of `measures`: `(2, ...)`, low and high."""
        return {name: interval(values, level) for name, values in self.resampled(resamples, seed).items()}


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
        prediction, truth = (_usual_integers(*pair) for pair in (("prediction", prediction), ("truth", truth)))
        if ids is not None and (len(ids) != len(truth) or any(number < 0 for number in ids)):
            raise CrispsegError(f"ids are {list(ids)} for {len(truth)} images; give each image a number, 0 or larger")
        return prediction, truth

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


def _usual_integers(name: str, labels: Tensor) -> Tensor:
    """Class ids, not logits or probabilities; in a type that can hold 255 and that PyTorch can compare.

    An int8 would take 255 for -1, and PyTorch hardly has operators for unsigned integers of more than 8 bits.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise CrispsegError(f"the {name} is {labels.dtype}; class ids are integers, such as logits.argmax(1)")
    return labels if labels.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64) else labels.long()


def interval(values: NDArray[np.float64], level: float = LEVEL) -> NDArray[np.float64]:
    """`(2, ...)`: the percentiles between which `level` percent of `values` `(R, ...)` lie, without those that are NaN.

    Raises:
        CrispsegError: a level that is not between 0 and 100.
    """
    if not 0 < level < 100:
        raise CrispsegError(f"level is {level}; give percent, between 0 and 100")
    tail = (1 - level / 100) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN
        bounds: NDArray[np.float64] = np.nanquantile(values, (tail, 1 - tail), axis=0)
    return bounds


def mean_of_present(values: NDArray[np.float64], axis: int = -1) -> Values:
    """The mean of what is not NaN along an axis; NaN where all is."""
    present = ~np.isnan(values)
    count = present.sum(axis)
    return ratio(np.where(present, values, 0).sum(axis), count)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """`part / whole`, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient if shape else float(quotient)
