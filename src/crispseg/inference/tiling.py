"""Processing of large images in tiles, and the memory limit that requires it.

Tiles overlap, and their logits are blended from top to bottom, linearly over an overlap. Only `overlap` rows of logits
are kept in full width: 4 · classes · overlap · width bytes.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.protocols import window_starts

MIN_TILE = 128
Tile: TypeAlias = Annotated[int, Field(ge=MIN_TILE)]  # side of the tiles in pixels
TILE = 1024  # default side of the tiles
OVERLAP = 8  # tiles overlap by side / `OVERLAP`, an eighth of their side


class Span(NamedTuple):
    """Range of a tile along one side of the image."""

    start: int  # first pixel that is read
    used: int  # first pixel that is used; after `start` if the tile was moved back to the image's border
    end: int


@torch.inference_mode()
def blended_rows(
    logits_of: Callable[[NDArray[Any]], Tensor],
    read: Callable[[int, int], NDArray[Any]],
    size: tuple[int, int],
    tile: int,
    temperature: float = 1.0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield labels and confidences `(2, h, W)` of an image from top to bottom, one row of tiles at a time.

    Confidences are the largest probabilities, from 0 to 255.

    Args:
        logits_of: function that computes the logits `(C, h, w)` of a tile `(h, w, channels)`.
        read: function that returns rows `[top, bottom)` of the image, `(h, W, channels)`.
        size: `(H, W)` of the image.
        tile: side of the tiles.
        temperature: see `ModelInfo`.
    """
    overlap = tile // OVERLAP
    down, across = (spans(length, tile, overlap) for length in size)
    above = torch.empty(0)  # logits of the last rows of the tiles above
    for index, row in enumerate(down):
        last = index == len(down) - 1
        band = read(row.start, row.end)
        blended = np.empty((2, row.end - row.used - (0 if last else overlap), size[1]), np.uint8)
        left: Tensor | None = None
        for column in across:
            pixels = np.ascontiguousarray(band[:, column.start : column.end])
            part = logits_of(pixels)[:, row.used - row.start :, column.used - column.start :].clone()  # (C, h, w)
            if len(down) > 1 and not above.numel():
                above = part.new_empty(len(part), overlap, size[1])
            weight = (torch.arange(overlap, device=part.device) + 0.5) / overlap  # weight of the later tile
            if left is not None:
                part[..., :overlap] = torch.lerp(left, part[..., :overlap], weight)
            if column.end < size[1]:
                left, part = part[..., -overlap:], part[..., :-overlap]
            # All tiles of this row that cover these columns are blended now.
            columns = slice(column.used, column.used + part.shape[2])
            if index:
                part[:, :overlap] = torch.lerp(above[..., columns], part[:, :overlap], weight[:, None])
            if not last:
                above[..., columns] = part[:, -overlap:]
                part = part[:, :-overlap]
            largest, labels = part.max(0)
            confidence = as_bytes((largest / temperature - (part / temperature).logsumexp(0)).exp())
            blended[:, :, columns] = torch.stack([labels.to(torch.uint8), confidence]).cpu().numpy()
        yield blended


def as_bytes(probabilities: Tensor) -> Tensor:
    """Return probabilities from 0 to 1 as uint8 from 0 to 255."""
    return (255 * probabilities.float()).round().to(torch.uint8)


def tiled(
    logits_of: Callable[[NDArray[Any]], Tensor], image: NDArray[Any], tile: int, temperature: float = 1.0
) -> NDArray[np.uint8]:
    """Return labels and confidences `(2, H, W)` of an image `(H, W, channels)`; arguments as for `blended_rows`."""
    size = image.shape[0], image.shape[1]
    rows = blended_rows(logits_of, lambda top, bottom: image[top:bottom], size, tile, temperature)
    return np.concatenate(list(rows), axis=1)


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Return the tiles along one side.

    >>> spans(20, 8, 2)
    [Span(start=0, used=0, end=8), Span(start=6, used=6, end=14), Span(start=12, used=12, end=20)]
    >>> spans(10, 8, 2)
    [Span(start=0, used=0, end=8), Span(start=2, used=6, end=10)]
    """
    starts = window_starts(length, tile, tile - overlap)
    ends = [min(start + tile, length) for start in starts]
    used = [0, *(end - overlap for end in ends[:-1])]
    return [Span(*values) for values in zip(starts, used, ends, strict=True)]


LARGE = 2**21  # minimum number of pixels for a check of free memory
SHARE = 0.7  # share of the free memory that an image may use, because operators and other programs need memory too
PROBE = 256  # minimum side of the image on which memory per pixel is measured


class Tiling:
    """Choose tiles for images that are too large for the free memory, and warn the first time.

    Args:
        see: function that processes a square image of a given side.
        device: device of the computation.
        side: minimum side at which `see` behaves as for larger images.
    """

    def __init__(self, see: Callable[[int], Any], device: torch.device, side: int = 0) -> None:
        self.see, self.device, self.side = see, device, max(side, PROBE)
        self._warned = False

    def forced(self, pixels: int) -> int | None:
        """Return the side of the tiles for this many pixels; None for the whole image, or if free memory is unknown."""
        free = free_bytes(self.device) if pixels >= LARGE else None
        if free is None or self.bytes_per_pixel * pixels < SHARE * free:
            return None
        tile = TILE
        while tile > MIN_TILE and self.bytes_per_pixel * tile**2 > SHARE * free:
            tile //= 2
        if not self._warned:
            self._warned = True
            need = self.bytes_per_pixel * pixels
            warnings.warn(
                f"an image of {pixels / 1e6:.1f} million pixels needs about {need / 1e9:.1f} GB at once, but "
                f"{free / 1e9:.1f} GB is free; such images are processed in tiles of {tile} pixels",
                CrispsegWarning,
                stacklevel=2,
            )
        return tile

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Memory per pixel in bytes, measured on a small image."""
        with torch.inference_mode():
            return peak_bytes(lambda: self.see(self.side)) / self.side**2


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes of tensors created in the block; `most` is the peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive: dict[int, int] = {}  # bytes of each storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage())._cdata not in self._alive:
                self._alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._alive.pop, storage._cdata)
        self.most = max(self.most, sum(self._alive.values()))
        return result


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the peak memory of the tensors of a computation in bytes, without memory inside operators."""
    with _PeakMemory() as memory:
        run()
    return int(memory.most)


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a CUDA device, or of the machine for a CPU; None for other devices."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


@contextmanager
def enough_memory(task: str, remedy: str) -> Iterator[None]:
    """Raise a CrispsegError if the block runs out of memory; `task` is subject and verb: "a.png needs"."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # on CUDA torch.OutOfMemoryError, on a CPU RuntimeError
        if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
            raise CrispsegError(f"{task} more memory than available; {remedy}") from None
        raise
