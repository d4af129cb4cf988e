"""How scores are written: in tables and pages to a tenth of a percent, in JSON to four decimals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from crispseg.evaluation.paired import Gain


def percent(value: float) -> str:
    """A score; a dash for NaN, that of a class which does not occur."""
    return "–" if value != value else f"{value:.1f}"


def signed(value: float) -> str:
    """A change, with its sign; a dash for NaN."""
    return "–" if value != value else f"{value:+.1f}".replace("-", "−")


def interval(bounds: NDArray[Any] | None) -> str:
    """`(2,)`, low and high; nothing where there are none."""
    return "" if bounds is None else " to ".join(map(percent, bounds))


def change(gain: Gain) -> str:
    """A single gain, with its interval if it has one."""
    low, high = map(float, gain.interval)
    return signed(float(gain.value)) + ("" if low != low else f" [{signed(low)}, {signed(high)}]")


def number(value: float) -> float | None:
    """For JSON; `null` for NaN."""
    return None if value != value else round(float(value), 4)


def change_number(gain: Gain) -> dict[str, Any]:
    """A single gain for JSON: `value`, and `interval`, `[low, high]` or `null`."""
    low, high = map(number, gain.interval)
    return {"value": number(float(gain.value)), "interval": None if low is None else [low, high]}


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], **options: Any) -> Table:
    """A table for the terminal, of plain text: the first column on the left, numbers on the right, titles too."""
    table = Table(title_justify="left", caption_justify="left", **options)
    for index, name in enumerate(head):
        table.add_column(escape(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
