"""Windows of K×K coarse pixels around fine pixels, and weighted sums of them, at any ratio of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crispseg.nn.inside import keep_inside
from crispseg.nn.layers import upcast
from crispseg.nn.rows import maps_of, rows_of, weighted_rows

KERNEL = 5
"""K of CARAFE, SAPA and FADE."""


def nearest(length: int, coarse: int, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coarse pixel nearest to each fine pixel on one axis, and the distance beyond it in coarse pixels."""
    index = torch.arange(length, device=like.device)
    # Whole numbers up to the last division, so that all runtimes round alike.
    half = max(length - 1, 1) if align_corners else length
    position = 2 * index * (coarse - 1) if align_corners else (2 * index + 1) * coarse - length  # in 1 / (2 · half)
    pixel = torch.div(position + half, 2 * half, rounding_mode="trunc")
    return pixel, (position - 2 * half * pixel) / (2 * half)


def nearest_upsampled(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Upsample `x` (N, C, h, w) to `size` by the nearest pixel."""
    rows, columns = (nearest(fine, side, align_corners, x)[0] for fine, side in zip(size, x.shape[-2:], strict=True))
    return x.index_select(2, rows).index_select(3, columns)


def moved(dx: Tensor, dy: Tensor, coarse: Sequence[int], align_corners: bool) -> list[Tensor]:
    """Return x and y of fine pixels moved by `dx`, `dy` (N, H, W) coarse pixels, -1..1 from edge to edge of `coarse`.

    At pixel centres, points stay inside the level (see `keep_inside`).
    """
    rows, columns = (
        torch.add(*nearest(length, side, align_corners, dx)) for length, side in zip(dx.shape[-2:], coarse, strict=True)
    )
    points = [(2 * (columns + dx) + 1) / coarse[1] - 1, (2 * (rows[:, None] + dy) + 1) / coarse[0] - 1]
    return points if align_corners else keep_inside(points, coarse)


class Window(NamedTuple):
    """The K×K coarse pixels around each fine pixel; pixels outside are those at the edge."""

    rows: Tensor
    """Indices `(N · H · W, K²)` of the coarse level's rows of channels, row by row of the window."""
    shape: Sequence[int]
    """N, H and W."""

    @classmethod
    def around(cls, y: Tensor, x: Tensor, side: int, coarse: Tensor) -> Window:
        """Return windows of this side around pixels `y`, `x` of `coarse` (N, C, h, w); they broadcast to (N, H, W)."""
        count, _, height, width = coarse.shape
        steps = torch.arange(side, device=coarse.device) - side // 2
        ys = (y[..., None, None] + steps[:, None]).clamp(0, height - 1)
        xs = (x[..., None, None] + steps).clamp(0, width - 1)
        first = torch.arange(count, device=coarse.device)[:, None, None, None, None] * (height * width)
        rows = first + ys * width + xs  # (N, H, W, K, K)
        return cls(rows.flatten(3).flatten(0, 2), rows.shape[:3])

    def sum(self, coarse: Tensor, weights: Tensor) -> Tensor:
        """Sum the pixels of `coarse` (N, C, h, w) by `weights` (N, H, W, K²) to (N, C, H, W)."""
        summed = weighted_rows(upcast(rows_of(coarse)), self.rows, upcast(weights).flatten(0, 2))
        return maps_of(summed, self.shape).to(coarse.dtype)


def window_at(size: Sequence[int], coarse: Tensor, align_corners: bool) -> tuple[Window, Tensor]:
    """Return the window of each pixel of a fine level of this size, and the logits of a distance prior.

    The prior is -2 d², (H, W, K²), with d the distance in coarse pixels. Its softmax is close to bilinear upsampling.
    """
    (y, dy), (x, dx) = (nearest(*sides, align_corners, coarse) for sides in zip(size, coarse.shape[-2:], strict=True))
    steps = torch.arange(KERNEL, device=coarse.device) - KERNEL // 2
    of_rows, of_columns = ((steps - distance[:, None]).square() for distance in (dy, dx))  # (H, K) and (W, K)
    prior = -2 * (of_rows[:, None, :, None] + of_columns[:, None, :]).flatten(2)
    return Window.around(y[:, None], x, KERNEL, coarse), prior
