"""How scores are written: in tables and pages to a tenth of a percent, in JSON to four decimals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

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
