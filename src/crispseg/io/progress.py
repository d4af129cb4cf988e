"""Progress bars of long loops, on terminals only.

rich prints empty lines for a disabled bar in some versions and asks for ipywidgets in notebooks. A bar that nobody sees
is therefore not made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], description: str, total: int | None = None, console: Console | None = None
) -> Iterable[Item]:
    """Return the items, counted by a bar that disappears at the end if `console` is a terminal.

    Args:
        items: items of the loop.
        description: text before the bar.
        total: number of items; by default `len(items)`.
        console: where the bar is drawn; None hides it.
    """
    if console is None or not console.is_terminal:
        return items
    return track(items, description, total, console=console, transient=True)
