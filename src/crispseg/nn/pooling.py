"""Averages over grids of bins, as matrix products that can be exported for images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BinAverages(nn.Module):
    """`F.adaptive_avg_pool2d` to several grids of bins at once, as one matrix product.

    It reads the feature once and, unlike PyTorch's pooling, can be exported for images of any size.

    Args:
        grids: each of `size` rows and as many columns of bins.
    """

    row: Tensor
    column: Tensor
    size: Tensor

    def __init__(self, grids: Sequence[int]) -> None:
        super().__init__()
        self.counts = [size * size for size in grids]
        bins = [(row, column, size) for size in grids for row in range(size) for column in range(size)]
        for name, values in zip(("row", "column", "size"), zip(*bins, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)  # (bins,)

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        """`(N, C, h, w)` → for each grid `(N, C, size · size)`, row by row."""
        rows = inside_bins(feature.shape[2], self.row, self.size)
        columns = inside_bins(feature.shape[3], self.column, self.size)
        inside = (rows[:, None] & columns).flatten(0, 1).to(feature.dtype)  # (h, 1, bins) & (w, bins) → (h · w, bins)
        sums = torch.bmm(feature.flatten(2), inside.expand(feature.shape[0], -1, -1))  # (N, C, bins)
        # Divided last and in float32: 0 and 1 are exact in bfloat16, 1 / n and n are not.
        averages = (sums / (rows.sum(0) * columns.sum(0)).float()).to(sums.dtype)
        return torch.split(averages, self.counts, dim=2)


def average_bins(feature: Tensor, size: int) -> Tensor:
    """`F.adaptive_avg_pool2d(feature, size)` as two matrix products, which can be exported for images of any size.

    `(N, C, h, w)` → `(N, C, size, size)`.
    """
    index = torch.arange(size, device=feature.device)
    rows, columns = (inside_bins(length, index, size) for length in feature.shape[-2:])  # (h, size), (w, size)
    maps = feature.flatten(0, 1)  # (N · C, h, w)
    # Not @, which asks whether there is one row: the answer for one image would be built into an exported graph.
    right, left = (each.to(feature.dtype).expand(maps.shape[0], -1, -1) for each in (columns, rows.mT))
    sums = torch.bmm(left, torch.bmm(maps, right))  # (N · C, size, size)
    averages = (sums / (rows.sum(0)[:, None] * columns.sum(0)).float()).to(sums.dtype)
    return averages.view(*feature.shape[:2], size, size)  # (N, C, size, size)


def inside_bins(length: int, index: Tensor, size: Tensor | int) -> Tensor:
    """Whether each pixel along one axis is in each bin, `(length, bins)`.

    Bin i of b reaches from pixel ⌊i · length / b⌋ to before ⌈(i + 1) · length / b⌉; here multiplied out.

    Args:
        length: pixels along the axis.
        index: i of each bin.
        size: b, of each bin or of all.
    """
    start = torch.arange(length, device=index.device)[:, None] * size  # (length, bins)
    return (index * length < start + size) & (start < (index + 1) * length)
