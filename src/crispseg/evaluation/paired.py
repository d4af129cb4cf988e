"""How much better one prediction of a split is than another, with paired bootstrap intervals over its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryF
from crispseg.evaluation.per_image import LEVEL, RESAMPLES, interval, mean_of_present, resample
from crispseg.evaluation.scores import Counts, Scores

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Score of the second less that of the first, in percentage points.

    Args:
        value: `(...)`.
        interval: `(2, ...)`, low and high of the bootstrap; NaN where there is none.
    """

    value: Values
    interval: Values

    @property
    def is_clear(self) -> NDArray[np.bool_]:
        """`(...)`: 0 lies outside of the interval."""
        clear: NDArray[np.bool_] = (self.interval[0] > 0) | (self.interval[1] < 0)
        return clear

    def at(self, index: int) -> Gain:
        """That of one class or distance."""
        return Gain(self.value[index], self.interval[:, index])


def score_gains(
    first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, Gain]:
    """Gains in `miou` `()` and `iou` `(C,)`, of the split; `image_miou` `()`, the mean of the images' own mIoU.

    In each resample the same images are drawn for both, so what makes an image hard for both cancels out.

    Args:
        first, second: of the same images, with the counts of each.
        resamples: how often images are drawn; 0 for no intervals.
        seed: of the draws.
        level: percent.

    Raises:
        CrispsegError: they are without counts of each image, not of the same images, or of another truth.
    """
    if first.images is None or second.images is None or first.ids is None or second.ids is None:
        raise CrispsegError("gains need the counts of each image; score by SegmentationScores(…, per_image=True)")
    if not np.array_equal(first.ids, second.ids) or not np.array_equal(first.images.truth, second.images.truth):
        raise CrispsegError("the two predictions are not of the same images with the same truth; score one split twice")

    def of(counts: Counts) -> dict[str, Values]:
        return {"miou": np.asarray(counts.miou), "iou": counts.iou}

    images = len(first.ids)
    drawn = None
    if resamples and images > 1:
        drawn = of(first.images.resampled(resamples, seed)), of(second.images.resampled(resamples, seed))
    gains = _gains(of(first.counts), of(second.counts), drawn, level)
    each = second.images.miou - first.images.miou  # (N,)
    bounds = np.full(2, np.nan)
    if drawn is not None:
        bounds = interval(resample(images, lambda weights: weights @ each / images, resamples, seed), level)
    return {**gains, "image_miou": Gain(np.asarray(mean_of_present(each)), bounds)}


def boundary_gains(
    first: BoundaryF, second: BoundaryF, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, Gain]:
    """Gains in the boundary F-score: `mean` `(D,)` over classes, `f` `(D, C)`.

    Args:
        first, second: of the same images and distances.
        resamples, seed, level: as for `score_gains`.

    Raises:
        CrispsegError: they are not of the same images or distances.
    """
    if not np.array_equal(first.ids, second.ids) or first.distances != second.distances:
        raise CrispsegError("the two predictions are not of the same images and distances; score one split twice")

    def of(f: Values) -> dict[str, Values]:
        return {"mean": mean_of_present(f), "f": f}

    drawn = None
    if resamples and len(first.ids) > 1:
        drawn = of(first.resampled(resamples, seed)), of(second.resampled(resamples, seed))
    return _gains(of(first.f), of(second.f), drawn, level)


def _gains(
    before: dict[str, Values],
    after: dict[str, Values],
    drawn: tuple[dict[str, Values], dict[str, Values]] | None,
    level: float,
) -> dict[str, Gain]:
    gains = {}
    for name in before:
        value = np.asarray(after[name] - before[name])
        none = np.full((2, *value.shape), np.nan)
        gains[name] = Gain(value, none if drawn is None else interval(drawn[1][name] - drawn[0][name], level))
    return gains
