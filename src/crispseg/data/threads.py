"""Work on many files in a few threads: decoding releases the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from crispseg.errors import CrispsegError

MOST_WORKERS = max(64, 4 * (os.cpu_count() or 1))
"""Threads or processes at a time; more would take the machine down, and are no faster."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result], items: Iterable[Item], description: str, threads: int | None = None
) -> Iterator[Result]:
    """Yield the results in order from a few threads, with a progress bar on stderr if that is a terminal.

    Raises:
        CrispsegError: fewer threads than one, or more than `MOST_WORKERS`.
    """
    if threads is not None and not 1 <= threads <= MOST_WORKERS:
        raise CrispsegError(f"workers is {threads}; give a number from 1 to {MOST_WORKERS}")
    items = list(items)
    console = Console(stderr=True)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        yield from track(
            pool.map(function, items),
            description,
            total=len(items),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
