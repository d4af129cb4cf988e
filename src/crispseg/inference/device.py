"""The device that computes, and work on several items at a time on it."""

from __future__ import annotations

import platform
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from crispseg.errors import CrispsegError


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device, by default CUDA where there is one.

    Raises:
        CrispsegError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CrispsegError(f"device '{device}' cannot be used ({reason}); use 'cpu', 'cuda' or 'cuda:N'") from None
    return found


def processor_name(device: torch.device) -> str:
    """Return the processor's name as its maker gives it, if the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if device.type == "cpu" and cpuinfo.is_file() else ""
    if named := re.search(r"^model name\s*: (.+)", text, re.MULTILINE):
        return named[1].strip()
    return platform.processor() or platform.machine()


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
