"""Work on many files in a few threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from rich.console import Console

from crispseg.errors import CrispsegError
from crispseg.io.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result], items: Iterable[Item], description: str, threads: int | None = None
) -> Iterator[Result]:
    """Yield results in order from a few threads, with a progress bar if stderr is a terminal."""
    items = list(items)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        yield from progress(pool.map(function, items), description, len(items), Console(stderr=True))


def tried(function: Callable[[Item], Result]) -> Callable[[Item], Result | CrispsegError]:
    """Wrap a function so that it returns a `CrispsegError` instead of raising it."""

    def attempt(item: Item) -> Result | CrispsegError:
        try:
            return function(item)
        except CrispsegError as error:
            return error

    return attempt


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` indices, evenly spaced, including the first and the last."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()]
