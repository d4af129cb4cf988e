"""Intervals of scores by a bootstrap over images, and how scores are written."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

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


class TableRow(NamedTuple):
    """A row of scores; cells are texts or `Estimate`s, and pages draw the `Estimate` `bar` and the class's colour."""

    name: str
    cells: Sequence[Any]
    color: Color | None = None
    bar: Any = None


@dataclass(frozen=True)
class ScoreTable:
    """Scores for the terminal and for a page: names of all columns, rows, and a note below."""

    title: str
    head: Sequence[str]
    rows: Sequence[TableRow]
    note: str = ""

    def rich(self) -> Table:
        """The table for the terminal."""
        rows = [[row.name, *row.cells] for row in self.rows]
        return text_table(self.head, rows, title=self.title or None, caption=self.note or None)


@dataclass(frozen=True)
class Estimate:
    """A score in percent, or a gain in percentage points, with its interval.

    Args:
        value: `(...)`.
        interval: `(2, ...)`, low and high of the bootstrap; NaN if there is none.
        gain: it is the gain of a second prediction over a first.
        brief: its text does not have the interval.
    """

    value: Values
    interval: NDArray[np.float64]
    gain: bool = False
    brief: bool = False

    @property
    def is_clear(self) -> Any:
        """`(...)`: a gain whose interval does not contain 0."""
        return self.gain & ((self.interval[0] > 0) | (self.interval[1] < 0))

    def at(self, *index: int) -> Estimate:
        """That of one class, distance or width."""
        places: Any = (slice(None), *index)
        return replace(self, value=np.asarray(self.value)[index], interval=self.interval[places])

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

    @property
    def basis(self) -> list[object]:
        """What two predictions of the same images have in common: the images' numbers, and what else decides."""
        return [self.ids.tolist()]

    def resampled(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Values]:
        """`measures` of as many images, drawn with replacement, `(resamples, ...)`; empty for fewer than 2 images.

        The draws depend on the number of images and the seed alone: two predictions of the same images are resampled
        alike, and the difference of what this gives for each is a paired bootstrap.
        """
        images = len(self.ids)
        if not resamples or images < 2:
            return {}
        drawn = np.random.default_rng(seed).integers(images, size=(resamples, images))
        weights = np.stack([np.bincount(row, minlength=images) for row in drawn])
        return self.measures(weights.astype(np.float64))

    def estimates(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
        """Each of `measures` with its bootstrap interval over images; none for 0 resamples or fewer than 2 images."""
        return _estimates(self.measures(), self.resampled(resamples, seed))


def score_gains(
    first: ImageScores, second: ImageScores, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Gains in each of `measures`, such as `miou` `()` and `iou` `(C,)`, or `boundary_f` `(D,)`.

    In each resample the same images are drawn for both, so what makes an image hard for both cancels out.

    Raises:
        CrispsegError: they are not of the same images with the same truth.
    """
    if first.basis != second.basis:
        raise CrispsegError("the two predictions are not of the same images with the same truth; score one split twice")
    pairs = [(each.measures(), each.resampled(resamples, seed)) for each in (first, second)]
    values, drawn = (
        {name: after[name] - before[name] for name in before} for before, after in zip(*pairs, strict=True)
    )
    return _estimates(values, drawn, gain=True)


def _estimates(values: dict[str, Values], drawn: dict[str, Values], gain: bool = False) -> dict[str, Estimate]:
    """Scores with the intervals of their resamples `(R, ...)`, without those that are NaN."""
    found, tail = {}, (1 - LEVEL / 100) / 2
    for name, value in values.items():
        every = drawn.get(name, np.full((1, *np.shape(value)), np.nan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN
            found[name] = Estimate(value, np.nanquantile(every, (tail, 1 - tail), axis=0), gain)
    return found


def mean_of_present(values: NDArray[np.float64], axis: int = -1) -> Values:
    """The mean of what is not NaN along an axis; NaN where all is."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0).sum(axis), present.sum(axis))


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """`part / whole`, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient if shape else float(quotient)
