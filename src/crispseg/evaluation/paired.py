"""How much better one prediction of a split is than another, with paired bootstrap intervals over its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.evaluation.per_image import LEVEL, RESAMPLES, ImageScores, Values, interval
from crispseg.evaluation.scores import Scores


@dataclass(frozen=True)
class Gain:
    """Score of the second less that of the first, in percentage points.

    Args:
        value: `(...)`.
        interval: `(2, ...)`, low and high of the bootstrap; NaN where there is none.
    """

    value: Values
    interval: NDArray[np.float64]

    @property
    def is_clear(self) -> NDArray[np.bool_]:
        """`(...)`: 0 lies outside of the interval."""
        clear: NDArray[np.bool_] = (self.interval[0] > 0) | (self.interval[1] < 0)
        return clear

    def at(self, index: int) -> Gain:
        """The gain of one class or distance."""
        return Gain(self.value[index], self.interval[:, index])


def score_gains(
    first: ImageScores, second: ImageScores, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, Gain]:
    """Gains in each of `measures`, such as `miou` `()` and `iou` `(C,)`, or `boundary_f` `(D,)`.

    In each resample the same images are drawn for both, so what makes an image hard for both cancels out.

    Args:
        first, second: scores of one kind, of the same images.
        resamples: how often images are drawn; 0 for no intervals.
        seed: seed of the draws.
        level: percent.

    Raises:
        CrispsegError: they are without counts of each image, not of the same images with the same truth, or of other
            distances.
    """
    for scores in (first, second):
        if isinstance(scores, Scores) and scores.confusion.any() and not len(scores.ids):
            raise CrispsegError("gains need the counts of each image; score by SegmentationScores(…, per_image=True)")
    if first.basis != second.basis:
        raise CrispsegError("the two predictions are not of the same images with the same truth; score one split twice")
    before, after = first.measures(), second.measures()
    drawn = None
    if resamples and len(first.ids) > 1:
        drawn = first.resampled(resamples, seed), second.resampled(resamples, seed)
    gains = {}
    for name in before:
        value = after[name] - before[name]
        bounds = np.full((2, *np.shape(value)), np.nan)
        gains[name] = Gain(value, bounds if drawn is None else interval(drawn[1][name] - drawn[0][name], level))
    return gains
