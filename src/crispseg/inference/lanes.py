"""Work on several things at a time, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LANES = 2


def in_lanes(
    items: Iterable[Item], work: Callable[[Item], Result]
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Each item, in order, and what will be its result; `LANES` threads work, one item more waits for them.

    Items are taken by a thread too, so that a slow iterable holds no result back. An error of the work is in the item's
    future, one of the iterable is raised.
    """
    lanes, taker = ThreadPoolExecutor(LANES), ThreadPoolExecutor(1)
    remaining = iter(items)

    def take() -> tuple[Item, Future[Result]] | None:
        for item in remaining:
            return item, lanes.submit(work, item)
        return None

    try:
        taken = deque(taker.submit(take) for _ in range(LANES + 1))
        while (following := taken.popleft().result()) is not None:
            taken.append(taker.submit(take))
            yield following
    finally:
        for pool in (taker, lanes):
            pool.shutdown(cancel_futures=True)
