"""How much memory a computation takes, how much there is, and what follows for large images."""

from __future__ import annotations

import ctypes
import gc
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.blending import MIN_TILE, TILE

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
CLEAR_REFS = Path("/proc/self/clear_refs")
OWN_STATUS = Path("/proc/self/status")


LARGE = 2**21
"""Pixels from which on it is asked whether memory will do."""
SHARE = 0.7
"""Of the free memory that an image may take: operators use more than their tensors, and others need some too."""
PROBE = 256
"""Least side of the image on which is counted what a pixel takes."""


class Tiling:
    """Chooses whether images are seen whole or, where memory asks for it, in tiles; the first time a warning says so.

    Args:
        see: computes what an image of this side, square, needs.
        device: where.
        side: least side to which `see` behaves as for larger images.
    """

    def __init__(self, see: Callable[[int], Any], device: torch.device, side: int = 0) -> None:
        self.see, self.device, self.side = see, device, max(side, PROBE)
        self._told = False

    def forced(self, pixels: int, task: str) -> int | None:
        """Side of the tiles for an image of so many pixels, None for whole; `task` is who needs memory, and the verb.

        Also None where nobody knows how much memory is free.
        """
        if pixels < LARGE or (free := free_bytes(self.device)) is None:
            return None
        need = self.bytes_per_pixel * pixels
        if need < SHARE * free:
            return None
        tile = TILE
        while tile > MIN_TILE and self.bytes_per_pixel * tile**2 > SHARE * free:
            tile //= 2
        if not self._told:
            self._told = True
            warnings.warn(
                f"{task} about {need / 1e9:.1f} GB at once, and {free / 1e9:.1f} GB are free: it is seen in tiles of "
                f"{tile} pixels, as are others like it",
                CrispsegWarning,
                stacklevel=2,
            )
        return tile

    @cached_property
    def bytes_per_pixel(self) -> float:
        """What seeing an image takes, counted on a small one."""
        return peak_bytes(lambda: self.see(self.side)) / self.side**2


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made in the block, on any device; what operators use inside is not seen.

    Attributes:
        most: the most bytes at one time so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._alive:
                storage = leaf.untyped_storage()
                self._alive.add(storage._cdata)
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, storage: int, size: int) -> None:
        self._alive.discard(storage)
        self._now -= size


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that the tensors of a computation take at one time."""
    with PeakMemory() as memory:
        run()
    most: int = memory.most
    return most


def free_bytes(device: torch.device) -> int | None:
    """The memory that is left: of a CUDA device; or of this machine, its container and its control group.

    None where it is not known: on other devices, and on a CPU outside of Linux.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    rooms = [*_machine_room(), *_group_rooms()] if device.type == "cpu" else []
    return min(rooms, default=None)


@contextmanager
def enough_memory(task: str, remedy: str) -> Iterator[None]:
    """Tell in one line that the block needs more memory than there is.

    Args:
        task: what needs it, and the verb.
        remedy: what to do about it.

    Raises:
        CrispsegError: there is not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError; on a CPU it is that alone
        if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
            raise CrispsegError(f"{task} more memory than there is; {remedy}") from None
        raise


def _machine_room() -> Iterator[int]:
    if MEMINFO.is_file():
        yield from (int(line.split()[1]) * 1024 for line in _lines(MEMINFO) if line.startswith("MemAvailable:"))


def _group_rooms() -> Iterator[int]:
    """What the limits of this process's control group and of those above it leave, of version 2 and of version 1."""
    for line in _lines(OWN_GROUP):
        _, version_1, path = line.split(":", 2)  # the controllers of the group; version 2 names none
        if version_1 not in ("", "memory"):
            continue
        root = CGROUP / version_1
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version_1 else ("memory.max", "memory.current")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):  # in a container the path may lead nowhere, and the root is the group
            most, used = (_lines(folder / file) for file in files)
            if folder.is_relative_to(root) and most and used and most != ["max"]:
                stat = (each.split() for each in _lines(folder / "memory.stat"))
                reclaimable = sum(int(size) for name, size in stat if name == "inactive_file")
                yield int(most[0]) - int(used[0]) + reclaimable


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where there is no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def resident_growth(run: Callable[[], Any]) -> int | None:
    """The most bytes by which this process grows while something runs, operators of any library included.

    None where the system does not tell.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would otherwise be used again, and count nothing
    try:
        CLEAR_REFS.write_text("5")  # the highest mark so far is forgotten
        before = _own_bytes("VmRSS")
    except (OSError, StopIteration):
        before = None
    run()
    return None if before is None else max(_own_bytes("VmHWM") - before, 0)


def _own_bytes(name: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in _lines(OWN_STATUS) if line.startswith(f"{name}:"))
