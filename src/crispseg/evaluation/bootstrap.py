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
    """A row of scores.

    Args:
        name: what it is of.
        cells: texts, or `Estimate`s, which pages have in bold if their `is_clear`.
        color: of a class.
        bar: an `Estimate` in percent, drawn as a bar on pages.
    """

    name: str
    cells: Sequence[Any]
    color: Color | None = None
    bar: Any = None


@dataclass(frozen=True)
class ScoreTable:
    """Scores for the terminal and for a page.

    Args:
        title: above the table.
        head: names of all columns, that of the rows' names first.
        rows: the rows.
        note: below the table.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[TableRow]
    note: str = ""

    def rich(self) -> Table:
        """The table for the terminal."""
        rows = [[row.name, *row.cells] for row in self.rows]
        return text_table(self.head, rows, title=self.title or None, caption=self.note or None)


RESAMPLES = 1000
LEVEL = 95.0
"""Percent of the resamples whose score lies within an interval."""

Values: TypeAlias = Any
"""Scores: a float64 array, or a float where there is no axis."""

_CHUNK = 2**22  # weights that are in memory at once


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

    def as_json(self) -> dict[str, Any]:
        """A single one: `value`, and `interval`, `[low, high]` or `null`."""
        low, high = map(number, self.interval)
        return {"value": number(self.value), "interval": None if low is None else [low, high]}


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

    def estimates(self, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> dict[str, Estimate]:
        """Each of `measures` with its bootstrap interval over images; none for 0 resamples or fewer than 2 images."""
        drawn = self.resampled(resamples, seed) if resamples and len(self.ids) > 1 else None
        return _estimates(self.measures(), drawn, level)


def _estimates(
    values: dict[str, Values], drawn: dict[str, Values] | None, level: float, gain: bool = False
) -> dict[str, Estimate]:
    none = {name: np.full((2, *np.shape(value)), np.nan) for name, value in values.items()}
    found = none if drawn is None else {name: interval(drawn[name], level) for name in values}
    return {name: Estimate(value, found[name], gain) for name, value in values.items()}


def score_gains(
    first: ImageScores, second: ImageScores, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, Estimate]:
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
    if first.basis != second.basis:
        raise CrispsegError("the two predictions are not of the same images with the same truth; score one split twice")

    def less(one: dict[str, Values], other: dict[str, Values]) -> dict[str, Values]:
        return {name: one[name] - other[name] for name in one}

    drawn = None
    if resamples and len(first.ids) > 1:
        drawn = less(second.resampled(resamples, seed), first.resampled(resamples, seed))
    return _estimates(less(second.measures(), first.measures()), drawn, level, gain=True)


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
    return ratio(np.where(present, values, 0).sum(axis), present.sum(axis))


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """`part / whole`, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient if shape else float(quotient)
