"""Work on several items at a time, with results in order."""

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

WORKERS = 2


def in_parallel(
    items: Iterable[Item], read: Callable[[Item], Ready], work: Callable[[Ready], Result]
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Yield each item, in order, with the future of its result; `WORKERS` threads work, and one more item waits.

    A further thread takes items and reads them, each before it takes the next, so that an iterable may reuse its
    buffer. In each worker PyTorch has a share of its threads here. An error in reading or in the work is that of the
    item's future; an error of the iterable is raised.
    """
    workers, reader = _workers(torch.get_num_threads()), ThreadPoolExecutor(1)
    remaining = iter(items)

    def take() -> tuple[Item, Future[Result]] | None:
        for item in remaining:
            try:
                ready = read(item)
            except Exception as error:
                failed: Future[Result] = Future()
                failed.set_exception(error)
                return item, failed
            return item, workers.submit(work, ready)
        return None

    try:
        taken = deque(reader.submit(take) for _ in range(WORKERS + 1))
        while (following := taken.popleft().result()) is not None:
            taken.append(reader.submit(take))
            yield following
    finally:
        for pool in (reader, workers):
            pool.shutdown(cancel_futures=True)


def _workers(threads: int) -> ThreadPoolExecutor:
    """`WORKERS` threads that have started, among which PyTorch's threads are divided."""
    started = threading.Barrier(WORKERS + 1)

    def start() -> None:
        torch.get_num_threads()  # a new thread asks for the number first, and would undo the next line later
        torch.set_num_threads(-(-threads // WORKERS))
        started.wait()

    pool = ThreadPoolExecutor(WORKERS, initializer=start)
    for _ in range(WORKERS):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)  # new threads take the number that was set last, by any thread
    return pool
