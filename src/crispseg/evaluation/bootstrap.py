"""Intervals of scores by a bootstrap over images, and how scores are written."""

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
LEVEL = 95.0
"""Percent of the resamples whose score lies within an interval."""

Values: TypeAlias = Any
"""Scores: a float64 array, or a float where there is no axis."""


def percent(value: float) -> str:
    """A score; a dash for NaN, that of a class which does not occur."""
    return "–" if value != value else f"{value:.1f}"


def signed(value: float) -> str:
    """A change, with its sign; a dash for NaN."""
    return "–" if value != value else f"{value:+.1f}".replace("-", "−")


def number(value: float) -> float | None:
    """For JSON; `null` for NaN."""
    return None if value != value else round(float(value), 4)


def text_table(head: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> Table:
    """A table for the terminal, of plain text: the first column on the left, numbers on the right, titles too."""
    table = Table(title_justify="left", caption_justify="left", **options)
    for index, name in enumerate(head):
        table.add_column(escape(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


@dataclass(frozen=True)
class ScoreTable:
    """Scores for the terminal and for a page.

    Args:
        head: names of the columns.
        rows: a name and its cells, texts or `Estimate`s.
        colors: of the rows if they are classes, whose first score has a bar on a page.
        title, note: lines above and below.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    colors: Sequence[Color] = ()
    title: str = ""
    note: str = ""

    def rich(self) -> Table:
        """The table for the terminal."""
        return text_table(self.head, self.rows, title=self.title or None, caption=self.note or None)


@dataclass(frozen=True)
class Estimate:
    """A score in percent, or a gain in percentage points, with its interval.

    Args:
        value: `(...)`.
        samples: `(R, ...)`, its values for resampled images; none if there is no interval.
        gain: it is the gain of a second prediction over a first.
        brief: its text does not have the interval.
    """

    value: Values
    samples: NDArray[np.float64]
    gain: bool = False
    brief: bool = False

    def __sub__(self, first: Estimate) -> Estimate:
        return Estimate(self.value - first.value, self.samples - first.samples, gain=True)

    @cached_property
    def interval(self) -> NDArray[np.float64]:
        """`(2, ...)`, low and high, without samples that are NaN; NaN if there are none."""
        if not len(self.samples):
            return np.full((2, *np.shape(self.value)), np.nan)
        tail = (1 - LEVEL / 100) / 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN
            return np.asarray(np.nanquantile(self.samples, (tail, 1 - tail), axis=0))

    @property
    def is_clear(self) -> Any:
        """`(...)`: a gain whose interval does not contain 0."""
        return self.gain & ((self.interval[0] > 0) | (self.interval[1] < 0))

    def at(self, *index: int) -> Estimate:
        """That of one class, distance or width."""
        places: Any = (slice(None), *index)
        return replace(self, value=np.asarray(self.value)[index], samples=self.samples[places])

    def alone(self) -> str:
        """A single value as text, without its interval."""
        return signed(self.value) if self.gain else percent(self.value)

    def range(self) -> str:
        """The interval of a single value as text; empty if there is none."""
        low, high = map(signed if self.gain else percent, self.interval)
        return "" if np.isnan(self.interval[0]) else f"[{low}, {high}]"

    def __str__(self) -> str:
        return self.alone() if self.brief else f"{self.alone()} {self.range()}".rstrip()


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

    def estimates(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
        """Each of `measures`, with its values for as many images, drawn with replacement; none for fewer than 2 images.

        The draws depend on the number of images and the seed alone: the difference of the estimates of two predictions
        of the same images is a paired bootstrap.
        """
        images = len(self.ids)
        weights = np.zeros((resamples if images > 1 else 0, images))
        drawn = np.random.default_rng(seed).integers(images or 1, size=weights.shape)
        for row, chosen in zip(weights, drawn, strict=True):
            row += np.bincount(chosen, minlength=images)
        samples = self.measures(weights)
        return {name: Estimate(value, samples[name]) for name, value in self.measures().items()}


def score_gains(
    first: ImageScores, second: ImageScores, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Gains in each of `measures`, such as `miou` `()` and `iou` `(C,)`, or `boundary_f` `(D,)`.

    In each resample the same images are drawn for both, so what makes an image hard for both cancels out.

    Raises:
        CrispsegError: they are not of the same images.
    """
    if not np.array_equal(first.ids, second.ids):
        raise CrispsegError("the two predictions are not of the same images; score one split twice")
    before, after = (each.estimates(resamples, seed) for each in (first, second))
    return {name: after[name] - before[name] for name in before}


def mean_of_present(values: NDArray[np.float64], axis: int = -1) -> Values:
    """The mean of what is not NaN along an axis; NaN where all is."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0).sum(axis), present.sum(axis))


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """`part / whole`, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient if shape else float(quotient)
