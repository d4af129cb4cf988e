"""Device selection, names and abilities of machines, and parallel work on several items."""

from __future__ import annotations

import os
import platform
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import torch
from pydantic import BeforeValidator
from threadpoolctl import ThreadpoolController

from crispseg.config.settings import shortened
from crispseg.errors import CrispsegError, CrispsegWarning, one_line

FloatPrecision: TypeAlias = Literal["fp32", "bf16"]  # of inference; sampling coordinates stay float32 in bf16
DeviceName: TypeAlias = Annotated[str, BeforeValidator(str)]  # or a torch.device


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device, by default CUDA if available, or raise a CrispsegError if it cannot be used."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        usable = torch.device(device)
        torch.zeros(1, device=usable).item()
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as error:
        reason = shortened(one_line(error))
        line = f"device '{device}' cannot be used ({reason})"
        raise CrispsegError(f"{line}; use 'cpu', 'cuda', 'cuda:N' or 'mps'") from None
    return usable


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the words of this file, which include the processor's instruction sets; it exists on Linux only."""
    return set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.is_file() else set()


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has bfloat16 instructions; without them, PyTorch emulates them slowly."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(instruction_sets(cpuinfo))


def processor_name(device: torch.device) -> str:
    """Return the name of the processor, if the system provides it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*: (.+\S)", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def runs_coreml() -> bool:
    """Return whether this system runs Core ML files."""
    return sys.platform == "darwin"


SPAWN = "create the first Segmenter after the fork, or start processes by spawn"

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def first_process(library: str) -> int:
    """Return the process that used the threads of a library first; processes forked later lack them, but see this."""
    return os.getpid()


def check_process(device: str = "cpu") -> None:
    """Use one thread in a process that was forked after the first use of PyTorch, which would wait for others for ever.

    With another device than the CPU a CrispsegError is raised.
    """
    if first_process("torch") == os.getpid():
        return
    if device != "cpu":
        raise CrispsegError(f"{device} cannot be used in a forked process; {SPAWN}")
    torch.set_num_threads(1)  # the whole setting of this process, since MKL keeps its own
    warn_of_fork(os.getpid())


@cache
def warn_of_fork(process: int) -> None:
    """Warn once in each forked process."""
    line = f"process {process} was forked after a Segmenter was created, and uses one thread"
    warnings.warn(f"{line}; {SPAWN}", CrispsegWarning, stacklevel=3)


def use_threads(count: int) -> None:
    """Set the number of OpenMP threads, which PyTorch uses, in the calling thread only.

    `torch.set_num_threads` would also set the number of threads that start later, in the whole program.
    """
    torch.get_num_threads()  # otherwise PyTorch would set the program's number at its first operation
    for library in openmp_libraries():
        library.set_num_threads(count)


@cache
def openmp_libraries() -> list[Any]:
    """Return the controllers of the loaded OpenMP libraries; the search takes milliseconds."""
    libraries: list[Any] = ThreadpoolController().select(user_api="openmp").lib_controllers
    return libraries


def check_unforked(process: int) -> None:
    """Raise a CrispsegError in another process than this one, whose threads a fork does not copy."""
    if os.getpid() != process:
        raise CrispsegError("images of a stream are processed in the process that began it; begin another after a fork")


def in_parallel(
    items: Iterable[Item], work: Callable[[Item], Result], workers: int, threads: int | None = None
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Yield each item in order with the future of its result, while `workers` threads work on the next items.

    Take each result before the next item, because unfinished work is cancelled at the end. Errors of the work are
    raised by the future. `threads` is the number of PyTorch threads of each worker, by default as here.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=None if threads is None else partial(use_threads, threads))
    process = os.getpid()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > workers:
                yield waiting.popleft()
                check_unforked(process)
        while waiting:
            yield waiting.popleft()
            check_unforked(process)
    finally:
        pool.shutdown(cancel_futures=True)
