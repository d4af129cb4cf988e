"""Bootstrap intervals of scores over images, and formatting of scores."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from crispseg.errors import CrispsegError
from crispseg.labels import Color

RESAMPLES = 1000
LEVEL = 95.0  # percentage of resamples whose score is within an interval

Values: TypeAlias = Any  # scores: a float64 array, or a float if there is no axis


def percent(value: float) -> str:
    """Format a score; NaN, the score of a class that does not occur, becomes a dash."""
    return "–" if value != value else f"{value:.1f}"


def signed(value: float) -> str:
    """Format a change with its sign; NaN becomes a dash."""
    return "–" if value != value else f"{value:+.1f}".replace("-", "−")


def number(value: float) -> float | None:
    """Convert a score for JSON; NaN becomes `null`."""
    return None if value != value else round(float(value), 4)


def text_table(head: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> Table:
    """Build a plain-text table for the terminal; the first column is left-aligned, all others right-aligned."""
    table = Table(title_justify="left", caption_justify="left", **options)
    for index, name in enumerate(head):
        table.add_column(escape(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


@dataclass(frozen=True)
class ScoreTable:
    """Table of scores for the terminal and for a page.

    Args:
        head: names of the columns.
        rows: a name and its cells, texts or `Estimate`s.
        colors: colours of the rows if they are classes; a page then draws a bar for their first score.
        title, note: lines above and below.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    colors: Sequence[Color] = ()
    title: str = ""
    note: str = ""

    def rich(self) -> Table:
        """Build the table for the terminal."""
        return text_table(self.head, self.rows, title=self.title, caption=self.note)


@dataclass(frozen=True)
class Estimate:
    """Score in percent, or gain in percentage points, with its interval.

    Args:
        value: value `(...)`.
        samples: values `(R, ...)` for resampled images; empty if there is no interval.
        gain: whether it is the gain of a second prediction over a first.
        brief: whether its text omits the interval.
    """

    value: Values
    samples: NDArray[np.float64]
    gain: bool = False
    brief: bool = False

    def __sub__(self, first: Estimate) -> Estimate:
        return Estimate(self.value - first.value, self.samples - first.samples, gain=True)

    @cached_property
    def interval(self) -> NDArray[np.float64]:
        """Low and high end, `(2, ...)`, without NaN samples; NaN if all samples are NaN."""
        if not len(self.samples):
            return np.full((2, *np.shape(self.value)), np.nan)
        tail = (1 - LEVEL / 100) / 2
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # raised if all are NaN
            return np.asarray(np.nanquantile(self.samples, (tail, 1 - tail), axis=0))

    @property
    def is_clear(self) -> Any:
        """Whether the interval of a gain excludes 0, `(...)`."""
        return self.gain & ((self.interval[0] > 0) | (self.interval[1] < 0))

    def at(self, *index: int) -> Estimate:
        """Return the estimate of one class, distance or width."""
        places: Any = (slice(None), *index)
        return replace(self, value=np.asarray(self.value)[index], samples=self.samples[places])

    def _formatted(self, value: float) -> str:
        return signed(value) if self.gain else percent(value)

    def alone(self) -> str:
        """Format a single value without its interval."""
        return self._formatted(self.value)

    def range(self) -> str:
        """Format the interval of a single value; empty if there is none."""
        low, high = self.interval
        return "" if np.isnan(low) else f"[{self._formatted(low)}, {self._formatted(high)}]"

    def __str__(self) -> str:
        return self.alone() if self.brief else f"{self.alone()} {self.range()}".rstrip()


class ImageScores(ABC):
    """Scores of a split that can be recomputed for resampled images.

    Attributes:
        ids: numbers `(N,)` of the images; -1 for an image without a number.
    """

    ids: NDArray[np.int64]

    @property
    def basis(self) -> NDArray[np.int64]:
        """What predictions of the same images have in common, with a row for each image."""
        return self.ids

    def measures(self) -> dict[str, Values]:
        """Return the value of each score in percent, of any shape `(...)`, by name."""
        return self.weighted(np.ones(len(self.ids)))

    @abstractmethod
    def weighted(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        """Return `measures` if each image counts by its weight `(N,)`; for weights `(R, N)`, values are `(R, ...)`."""

    def estimates(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
        """Return `measures` with their values for images drawn with replacement; fewer than 2 images give no interval.

        The draws depend only on the number of images and the seed. The difference between estimates of two predictions
        of the same images is therefore a paired bootstrap.
        """
        images = len(self.ids)
        weights = np.zeros((resamples if images > 1 else 0, images))
        drawn = np.random.default_rng(seed).integers(images or 1, size=weights.shape)
        for row, chosen in zip(weights, drawn, strict=True):
            row += np.bincount(chosen, minlength=images)
        samples = self.weighted(weights)
        return {name: Estimate(value, samples[name]) for name, value in self.measures().items()}


def score_gains(
    first: ImageScores, second: ImageScores, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Return the gains in each of `measures`, such as `miou` `()` and `iou` `(C,)`, or `boundary_f` `(D,)`.

    Each resample draws the same images for both, so the difficulty of single images cancels out.

    Raises:
        CrispsegError: the predictions are of different images, or the masks of the images differ.
    """
    if not (np.array_equal(first.ids, second.ids) and np.array_equal(first.basis, second.basis)):
        raise CrispsegError("the two predictions are for different images or masks; score both on the same split")
    before, after = first.estimates(resamples, seed), second.estimates(resamples, seed)
    return {name: after[name] - before[name] for name in before}


def mean_of_present(values: NDArray[np.float64]) -> Values:
    """Return the mean of the values that are not NaN along the last axis; NaN if all are."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0).sum(-1), present.sum(-1))


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """Return `part / whole`, with NaN if `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient if shape else float(quotient)
