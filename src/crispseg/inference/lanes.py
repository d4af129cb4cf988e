"""Work on several things at a time, with results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Result = TypeVar("Result")

LANES = 2
_starting = threading.Lock()


def in_lanes(
    items: Iterable[Item], read: Callable[[Item], Ready], work: Callable[[Ready], Result]
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Each item, in order, and what will be its result; `LANES` threads work, one item more waits for them.

    One thread takes items and reads them, each before it takes the next, so that a slow iterable holds no result back,
    and one that gives the same buffer again and again loses nothing. PyTorch has in a lane a share of the threads that
    it has here. An error in reading or in the work is in the item's future, one of the iterable is raised.
    """
    lanes, reader = _with_shares(torch.get_num_threads()), ThreadPoolExecutor(1)
    remaining = iter(items)

    def take() -> tuple[Item, Future[Result]] | None:
        for item in remaining:
            try:
                ready = read(item)
            except Exception as error:
                failed: Future[Result] = Future()
                failed.set_exception(error)
                return item, failed
            return item, lanes.submit(work, ready)
        return None

    try:
        taken = deque(reader.submit(take) for _ in range(LANES + 1))
        while (following := taken.popleft().result()) is not None:
            taken.append(reader.submit(take))
            yield following
    finally:
        for pool in (reader, lanes):
            pool.shutdown(cancel_futures=True)


def _with_shares(threads: int) -> ThreadPoolExecutor:
    """`LANES` threads, in each of which PyTorch has a share of so many threads."""
    lanes, started = ThreadPoolExecutor(LANES), threading.Barrier(LANES + 1)

    def start() -> None:
        torch.get_num_threads()  # a new thread asks for the number first, and would undo the next line later
        torch.set_num_threads(-(-threads // LANES))
        started.wait()

    with _starting:
        for _ in range(LANES):
            lanes.submit(start)
        started.wait()
        torch.set_num_threads(threads)  # new threads take what was set last, by whichever thread
    return lanes
