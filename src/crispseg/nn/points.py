"""Sampling at points by PyTorch's operator or, in exported graphs, by gathered rows of channels and their weighted sum.

The weighted sum is a chain of products and additions, which runtimes compute in one pass. Its factors are the weight of
the nearest pixel and, for each axis, the ratio of the weights of the farther and the nearer pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Sampling: TypeAlias = Literal["grid_sample", "gather"]
GROUP = 64
"""Channels that are gathered at a time, so that samples of a large map stay in cache."""
TINY = 1e-6
"""Smallest divisor."""

_sampling: ContextVar[Sampling] = ContextVar("sampling", default="grid_sample")


@contextmanager
def sampling_by(sampling: Sampling) -> Iterator[None]:
    """Use this sampling in the block, in which a graph is traced."""
    token = _sampling.set(sampling)
    try:
        yield
    finally:
        _sampling.reset(token)


def gathers() -> bool:
    """Return whether points are sampled by gathered rows."""
    return _sampling.get() == "gather"


def grid_sample(
    source: Tensor,
    grid: Tensor,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["zeros", "border"],
    align_corners: bool,
) -> Tensor:
    """Sample `source` (N, C, h, w) at `grid` (N, H, W, 2), as `F.grid_sample` does; nearest needs padding by border."""
    if not gathers():
        return F.grid_sample(source, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners)
    size, rows = source.shape[-2:], rows_of(source)
    x, y = (
        (points + 1) * ((side - 1) / 2) if align_corners else ((points + 1) * side - 1) / 2
        for points, side in zip(grid.unbind(3), reversed(size), strict=True)
    )  # in pixels, (N, H, W) each
    if mode == "nearest":
        sampled = rows.index_select(0, _index(x.round().long(), y.round().long(), size))
    else:
        corners = Corners.around(0, x, 0, y, size, padding_mode)
        sampled = torch.cat([corners.sample(group) for group in groups_of(rows)], dim=1)
    return maps_of(sampled, grid.shape[:3])


def rows_of(maps: Tensor) -> Tensor:
    """Return maps (N, C, H, W) as rows of channels (N · H · W, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def maps_of(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return rows (N · H · W, C) as maps (N, C, H, W) for `shape` (N, H, W)."""
    return torch.unflatten(rows, 0, tuple(shape)).permute(0, 3, 1, 2)


def groups_of(rows: Tensor, dim: int = 1) -> list[Tensor]:
    """Split channels into groups."""
    return list(torch.split(rows, GROUP, dim))


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


class Corners(NamedTuple):
    """The four pixels around each of P points: indices of their rows `(P,)`, and factors `(P, 1)` of the sum."""

    far: Tensor
    """Pixel that is farther in both axes."""
    above: Tensor
    """Pixel that is farther in y and nearer in x."""
    beside: Tensor
    near: Tensor
    ratio_x: Tensor
    ratio_y: Tensor
    weight: Tensor
    """Weight of the pixel that is nearer in both axes."""

    @classmethod
    def around(
        cls, left: Tensor | int, x: Tensor, top: Tensor | int, y: Tensor, size: Sequence[int], padding_mode: str
    ) -> Corners:
        """Return the corners of points (N, H, W) at pixels `left + x`, `top + y` of maps of this height and width.

        The first terms are whole numbers, so that the others may be small, and exact enough in bfloat16.
        """
        height, width = size
        x_near, x_far, x_weight, x_ratio = _neighbours(left, x, width, padding_mode)
        y_near, y_far, y_weight, y_ratio = _neighbours(top, y, height, padding_mode)
        pixels = (x_far, y_far), (x_near, y_far), (x_far, y_near), (x_near, y_near)
        rows = [_index(column, row, size) for column, row in pixels]
        return cls(*rows, *(factor.reshape(-1, 1) for factor in (x_ratio, y_ratio, x_weight * y_weight)))

    def sample(self, rows: Tensor) -> Tensor:
        """Sample rows (N · h · w, C) to (P, C)."""
        far, above, beside, near = (rows.index_select(0, index) for index in self[:4])
        return ((far * self.ratio_x + above) * self.ratio_y + (beside * self.ratio_x + near)) * self.weight


def _neighbours(first: Tensor | int, offset: Tensor, side: int, padding_mode: str) -> tuple[Tensor, ...]:
    """Return the nearer and the farther pixel of points on one axis, the nearer one's weight, and the ratio."""
    below = offset.floor()
    low = first + below.long()
    high, of_high = low + 1, offset - below
    of_low = 1 - of_high
    if padding_mode == "zeros":
        of_low, of_high = (weight * ((at >= 0) & (at < side)) for weight, at in ((of_low, low), (of_high, high)))
    swapped, weight = of_high > of_low, torch.maximum(of_low, of_high)
    ratio = torch.minimum(of_low, of_high) / weight.clamp(min=TINY)
    return torch.where(swapped, high, low), torch.where(swapped, low, high), weight, ratio


def _index(x: Tensor, y: Tensor, size: Sequence[int]) -> Tensor:
    """Return the rows (N · H · W,) of pixels (N, H, W) of maps; pixels outside are moved to the edge."""
    height, width = size
    first = torch.arange(x.shape[0], device=x.device)[:, None, None] * (height * width)
    return (first + y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten()
