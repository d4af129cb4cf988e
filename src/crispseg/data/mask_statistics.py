"""The statistics of masks: one pass over each file, of which no pixels are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.mask_lookup import pack_colors
from crispseg.errors import CrispsegError
from crispseg.io.images import largest_value, palette_of, read_mask
from crispseg.labels import IGNORE, Color, color_table

KEPT = 1024
"""So many values or colours of a mask are kept; a mask of labels has at most 256."""


class MaskStatistics(NamedTuple):
    """What a mask holds."""

    file: str
    size: tuple[int, int]
    """`(H, W)` upright."""
    values: NDArray[Any]
    """`(n,)` values, or `(n, 3)` colours where the channels differ: the `KEPT` most frequent ones, sorted."""
    counts: NDArray[np.int64]
    """`(n,)` pixels of each."""
    distinct: int
    """How many values or colours there are in all."""
    blended: float
    """The share of the steps between flat areas that go over values in between; see `blended_steps`."""
    digest: bytes
    """The values of all pixels, in short."""
    shown: NDArray[np.uint8] | None = None
    """`(n, 3)` what the file's own palette shows for each of the values; None without a palette."""
    most: int = 255
    """The largest value that its bits can hold, 3 or 15 in PNGs of 2 or 4 bits a pixel; 255 in all others."""

    @property
    def colors(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2

    @property
    def held(self) -> set[int]:
        """The values of a grey mask."""
        return set(self.values.tolist())


def read_statistics(path: Path) -> MaskStatistics:
    """The statistics of a mask file.

    Raises:
        CrispsegError: as for `read_mask`.
    """
    return statistics_of(read_mask(path), str(path), *header_of(path))


def header_of(path: Path) -> tuple[list[Color], int]:
    """The colours of a mask's own palette, and the largest value that its bits can hold; neither if it is broken."""
    try:
        return palette_of(path), largest_value(path)
    except CrispsegError:  # which reading it says
        return [], IGNORE


def statistics_of(mask: NDArray[Any], file: str, palette: Sequence[Color] = (), most: int = 255) -> MaskStatistics:
    """The statistics of a mask `(H, W)` or `(H, W, 3)`; for `palette` and `most` see `MaskStatistics`."""
    digest = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16, key=f"{mask.dtype}{mask.shape}".encode())
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    values, counts, distinct = count_values(pack_colors(mask) if mask.ndim == 3 else mask)
    if mask.ndim == 3:
        values = np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
    shown = color_table(palette[:256])[values] if palette and mask.ndim == 2 and mask.dtype == np.uint8 else None
    blended = blended_steps(mask if mask.ndim == 2 else mask.sum(-1, dtype=np.uint16)) if distinct > 2 else 0.0
    size = mask.shape[0], mask.shape[1]
    return MaskStatistics(file, size, values, counts, distinct, blended, digest.digest(), shown, most)


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """The `KEPT` most frequent values, sorted, their pixels, and how many values there are."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))  # labels come in long runs
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, np.diff(np.append(starts, flat.size))).astype(np.int64)
    most = np.sort(np.argsort(-counts, kind="stable")[:KEPT])
    return values[most], counts[most], len(values)


def blended_steps(values: NDArray[Any]) -> float:
    """The share of the steps between two flat areas, of unequal values, that pass over values in between.

    Where a mask was resized or turned with interpolation nearly all do; where class ids were drawn, few do, by
    chance. A flat area is two equal neighbours in a row or a column. Masks with fewer than 20 such steps, and noise, of
    which no more than half of the neighbours are equal, give 0.
    """
    over = steps = equal = neighbours = 0
    for lines in (values, values.T):
        before, after = lines[:, :-1], lines[:, 1:]
        up, down = after > before, after < before
        flat = ~(up | down)
        equal, neighbours = equal + int(flat.sum()), neighbours + flat.size
        # from a flat area, two changes in one direction
        monotone = (up[:, 1:-1] & up[:, 2:]) | (down[:, 1:-1] & down[:, 2:])
        over += int((flat[:, :-2] & monotone).sum())
        # one change by more than 1, between two flat areas
        far = np.maximum(before, after) - np.minimum(before, after) > 1
        steps += int((flat[:, :-2] & far[:, 1:-1] & flat[:, 2:]).sum())
    return over / (over + steps) if over >= 20 and 2 * equal > neighbours else 0.0
