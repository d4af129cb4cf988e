"""What the metrics share: checked labels, and a row of whole numbers for each image.

Sums of whole numbers, and rows in a fixed order, make scores exactly the same for any number of processes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import ImageScores
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
