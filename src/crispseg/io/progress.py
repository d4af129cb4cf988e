"""Lines on a console, and progress bars of long loops on terminals.

rich prints empty lines for a disabled bar in some versions and asks for ipywidgets in notebooks. A bar that nobody sees
is therefore not made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from crispseg.errors import one_line

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], description: str, total: int | None = None, console: Console | None = None
) -> Iterable[Item]:
    """Return the items, counted by a bar that disappears at the end if `console` is a terminal."""
    if console is None or not console.is_terminal:
        return items
    return track(items, description, total, console=console, transient=True)


def working(description: str, console: Console | None) -> AbstractContextManager[object]:
    """Return a block in which the description is shown next to a spinner if `console` is a terminal."""
    return console.status(description) if console is not None and console.is_terminal else nullcontext()


def print_lines(console: Console, lines: Iterable[str], style: str | None = None) -> None:
    """Print lines without markup or wrapping."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def dispensable(file: object, console: Console) -> Iterator[None]:
    """Report a picture or page that the block fails to write in one line, and continue without it."""
    try:
        yield
    except Exception as error:  # libraries that draw raise almost any
        print_lines(console, [f"{file} was not written ({one_line(error)}); the run continues without it"], "yellow")
