"""Maps as rows of channels, one row a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def rows_of(maps: Tensor) -> Tensor:
    """Return maps (N, C, H, W) as rows of channels (N · H · W, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def maps_of(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return rows (N · H · W, C) as maps (N, C, H, W) for `shape` (N, H, W)."""
    return torch.unflatten(rows, 0, tuple(shape)).permute(0, 3, 1, 2)


def weighted_rows(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Return the sums over K of `weights` (P, K) times the rows (R, C) at `indices` (P, K), (P, C).

    On a CPU, `embedding_bag` sums rows in registers. Bilinear samples take a third of the time of `grid_sample`.
    """
    if not torch.compiler.is_exporting():
        return F.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights)
    terms = (
        rows.index_select(0, index) * weight[:, None]
        for index, weight in zip(indices.unbind(1), weights.unbind(1), strict=True)
    )
    first, *others = terms
    return sum(others, start=first)
