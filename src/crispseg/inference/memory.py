"""Memory that an image takes, free memory, and tiles for images too large for it."""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.blending import MIN_TILE, TILE

LARGE = 2**21
"""Pixels from which on free memory is checked."""
SHARE = 0.7
"""Share of the free memory that an image may take: operators use more than their tensors, and others need some too."""
PROBE = 256
"""Least side of the image on which the bytes of a pixel are counted."""


class Tiling:
    """Chooses whether images are processed whole or, if memory is short, in tiles; the first time with a warning.

    Args:
        see: processes a square image of this side.
        device: device of the computation.
        side: least side from which `see` behaves as for larger images.
    """

    def __init__(self, see: Callable[[int], Any], device: torch.device, side: int = 0) -> None:
        self.see, self.device, self.side = see, device, max(side, PROBE)
        self._warned = False

    def forced(self, pixels: int, task: str) -> int | None:
        """Return the side of the tiles for an image of `pixels` pixels, or None for the whole image.

        `task` is subject and verb of the warning: "a.png needs". Also None if the free memory is unknown.
        """
        if pixels < LARGE or (free := free_bytes(self.device)) is None:
            return None
        need = self.bytes_per_pixel * pixels
        if need < SHARE * free:
            return None
        tile = TILE
        while tile > MIN_TILE and self.bytes_per_pixel * tile**2 > SHARE * free:
            tile //= 2
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{task} about {need / 1e9:.1f} GB at once, and {free / 1e9:.1f} GB are free: such images are "
                f"processed in tiles of {tile} pixels",
                CrispsegWarning,
                stacklevel=2,
            )
        return tile

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Bytes that a pixel takes, counted on a small image."""
        return peak_bytes(lambda: self.see(self.side)) / self.side**2


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors made in the block, on any device; what operators use inside is not counted.

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
    """Return the most bytes that the tensors of a computation take at one time."""
    with PeakMemory() as memory:
        run()
    most: int = memory.most
    return most


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a CUDA device, or of the machine for a CPU; None for other devices."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


@contextmanager
def enough_memory(task: str, remedy: str) -> Iterator[None]:
    """Raise one line if the block needs more memory than there is.

    Args:
        task: subject and verb: "a.png needs".
        remedy: what to do about it.

    Raises:
        CrispsegError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError; on a CPU it is that alone
        if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
            raise CrispsegError(f"{task} more memory than there is; {remedy}") from None
        raise
