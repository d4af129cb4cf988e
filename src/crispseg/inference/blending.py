"""Large images in tiles: they overlap, and their logits are blended, from top to bottom.

Weights fall and rise linearly over an overlap and add up to 1. Of the whole width only the logits of `overlap` rows are
ever held: 4 · classes · overlap · width bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.inference.protocols import window_starts

MIN_TILE = 128
TILE = 1024
"""Default side of the tiles."""
OVERLAP = 8
"""Tiles overlap by an eighth of their side."""

LogitsOf = Callable[[NDArray[Any]], Tensor]
"""A tile `(h, w, channels)` → logits `(C, h, w)`."""

Progress = Callable[[int, int], None]
"""Called after every tile with the number of tiles that are done, and of all."""


class Span(NamedTuple):
    """Range of a tile along one side of the image."""

    start: int
    """First pixel that is read."""
    used: int
    """First pixel that counts; after `start` if the tile was moved back to the image's border."""
    end: int


def check_tile(tile: int) -> None:
    """Raise a CrispsegError if tiles are too small to overlap by what a model needs."""
    if tile < MIN_TILE:
        raise CrispsegError(f"tiles of {tile} pixels are too small; give a side of at least {MIN_TILE}, such as 1024")


@torch.inference_mode()
def blended_rows(
    logits_of: LogitsOf,
    read: Callable[[int, int], NDArray[Any]],
    size: tuple[int, int],
    classes: int,
    tile: int,
    device: torch.device,
    progress: Progress | None = None,
    bands: range | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the labels of an image from top to bottom, the rows `(h, W)` of one row of tiles at a time.

    Args:
        logits_of: computes the logits of a tile.
        read: rows `[top, bottom)` of the image, `(h, W, channels)`.
        size: `(H, W)` of the image.
        classes: C.
        tile: side of the tiles.
        device: device of the logits.
        progress: see `Progress`.
        bands: rows of tiles to yield, by default all; the row of tiles above the first is computed too.
    """
    overlap = tile // OVERLAP
    down, across = (spans(length, tile, overlap) for length in size)
    bands = range(len(down)) if bands is None else bands
    # Of the rows at the bottom of the tiles so far, what these tiles add to the logits there.
    below = torch.empty(classes, overlap if len(down) > 1 else 0, size[1], device=device)
    for index in range(max(bands.start - 1, 0), bands.stop):
        row = down[index]
        band = read(row.start, row.end)
        first, last = index == 0, index == len(down) - 1
        labels = np.empty((row.end - row.used - (0 if last else overlap), size[1]), np.uint8)
        right: Tensor | None = None
        for number, column in enumerate(across):
            pixels = np.ascontiguousarray(band[:, column.start : column.end])
            part = logits_of(pixels)[:, row.used - row.start :, column.used - column.start :]  # (C, h, w)
            part = part * _ramps(row, overlap, first, last, device)[:, None]
            part *= _ramps(column, overlap, number == 0, number == len(across) - 1, device)
            if right is not None:
                part[..., :overlap] += right
            if number < len(across) - 1:
                right = part[..., -overlap:].clone()
                part = part[..., :-overlap]
            # All tiles of this row of tiles that see these columns have been added.
            columns = slice(column.used, column.used + part.shape[2])
            if not first:
                part[:, :overlap] += below[..., columns]
            if not last:
                below[..., columns] = part[:, -overlap:]
                part = part[:, :-overlap]
            labels[:, columns] = part.max(0).indices.to("cpu", torch.uint8).numpy()
            if progress is not None:
                progress(index * len(across) + number + 1, len(down) * len(across))
        if index in bands:
            yield labels


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """The tiles along one side.

    >>> spans(20, 8, 2)
    [Span(start=0, used=0, end=8), Span(start=6, used=6, end=14), Span(start=12, used=12, end=20)]
    >>> spans(10, 8, 2)
    [Span(start=0, used=0, end=8), Span(start=2, used=6, end=10)]
    """
    starts = window_starts(length, tile, tile - overlap)
    ends = [min(start + tile, length) for start in starts]
    used = [0, *(end - overlap for end in ends[:-1])]
    return [Span(*values) for values in zip(starts, used, ends, strict=True)]


def _ramps(span: Span, overlap: int, first: bool, last: bool, device: torch.device) -> Tensor:
    """Weights of the pixels that count, `(end - used,)`."""
    weights = torch.ones(span.end - span.used, device=device)
    rising = (torch.arange(overlap, device=device) + 0.5) / overlap
    if not first:
        weights[:overlap] *= rising
    if not last:
        weights[-overlap:] *= rising.flip(0)
    return weights
