"""Products with features sampled at N points per pixel, and attention to sampled pixels of a pyramid.

Two operators avoid N copies of a feature map. Each is the backward of the other in one argument:

    sampled_dot  s_n(p) = ⟨query(p), source(x_n(p))⟩           ∂/∂query   is a sampled_sum
    sampled_sum  y(p)   = Σ_n weights_n(p) · source(x_n(p))    ∂/∂weights is a sampled_dot

x_n(p) is the n-th point of pixel p; `source` is read bilinearly and is zero outside. Both process strips of a few rows,
forward and backward. The samples of a strip stay in cache and are discarded; the backward pass samples again. They are
custom operators of torch, so that `crispseg.benchmarking.cost` can count their products.

`DeformableAttention` is from Zhu et al., *Deformable DETR*, ICLR 2021, in UN-EPT's form (§3.1). It needs no build step,
supports any size per level, and is differentiable in all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn.layers import upcast
from crispseg.nn.record import Tap


def sampled_dot(query: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    """Compute dot products of each pixel's query with the features at its points.

    Args:
        query: queries `(B, C, H, W)`.
        source: features `(B, C, h, w)`.
        grid: points `(B, N, H, W, 2)`, x and y in -1..1 from edge to edge of `source` (`align_corners=False`).

    Returns:
        The dot products `(B, N, H, W)`, float32 or wider.
    """
    dot = _dot_in_graph if torch.compiler.is_exporting() else _dot
    return dot(upcast(query), upcast(source), upcast(grid))


def sampled_sum(weights: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    """Compute the weighted sum of the features at each pixel's points.

    Args:
        weights: weights `(B, N, H, W)`.
        source, grid: as for `sampled_dot`.

    Returns:
        The sums `(B, C, H, W)`, of the source's type.
    """
    add = _sum_in_graph if torch.compiler.is_exporting() else _sum
    return add(upcast(weights), upcast(source), upcast(grid)).to(source.dtype)


@torch.library.custom_op("crispseg::sampled_dot", mutates_args=())
def _dot(query: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    query, source = query.contiguous(), source.contiguous()
    products = query.new_empty(grid.shape[:-1])  # (B, N, H, W)
    for rows in _strips(source, grid):
        sampled = _sample(source, grid[:, :, rows])  # (B, C, N, rows, W)
        products[:, :, rows] = sampled.mul_(query[:, :, None, rows]).sum(1)
    return products


@torch.library.custom_op("crispseg::sampled_sum", mutates_args=())
def _sum(weights: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    source = source.contiguous()
    total = source.new_empty(*source.shape[:2], *grid.shape[2:4])  # (B, C, H, W)
    for rows in _strips(source, grid):
        sampled = _sample(source, grid[:, :, rows])  # (B, C, N, rows, W)
        total[:, :, rows] = sampled.mul_(weights[:, None, :, rows]).sum(2)
    return total


@torch.library.custom_op("crispseg::sampled_backward", mutates_args=())
def _backward(fine: Tensor, weights: Tensor, source: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of source and grid; the gradient of the n-th sampled map is `weights[:, n] · fine`.

    It is an operator, because `torch.compile` would otherwise trace all strips into one graph and store them at once.

    Args:
        fine: query of the dot product, or gradient of the sum, `(B, C, H, W)`.
        weights: gradient of the dot product, or weights of the sum, `(B, N, H, W)`.
        source, grid: as for `sampled_dot`.
    """
    fine, source = fine.contiguous(), source.contiguous()
    of_source, of_grid = torch.zeros_like(source), torch.empty_like(grid)
    bilinear_zeros_not_aligned = (0, 0, False)
    for rows in _strips(source, grid, passes_over_source=True):
        sampled = (fine[:, :, None, rows] * weights[:, None, :, rows]).flatten(2, 3)  # (B, C, N · rows, W)
        points = grid[:, :, rows]  # (B, N, rows, W, 2)
        of_source_here, of_points = torch.ops.aten.grid_sampler_2d_backward(
            sampled, source, points.flatten(1, 2), *bilinear_zeros_not_aligned, [True, True]
        )
        of_source += of_source_here
        of_grid[:, :, rows] = of_points.view_as(points)
    return of_source, of_grid


def _sample(source: Tensor, points: Tensor) -> Tensor:
    """Sample `(B, C, h, w)` at points `(B, N, H, W, 2)` to `(B, C, N, H, W)`."""
    sampled = F.grid_sample(
        source, points.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False
    )  # (B, C, N · H, W)
    return torch.unflatten(sampled, 2, points.shape[1:3])  # (B, C, N, H, W)


def _strips(source: Tensor, grid: Tensor, passes_over_source: bool = False) -> Iterator[slice]:
    """Yield the rows of each strip; on a CPU, strips are larger if each one processes the whole source."""
    values = 2**25  # 128 MiB in float32, so that all cores have work
    if source.device.type == "cpu":
        values = 2**23 if passes_over_source else 2**20  # 4 MiB stay in cache
    _, points, height, width, _ = grid.shape
    rows = max(1, values // max(1, source.shape[0] * source.shape[1] * points * width))
    for first in range(0, height, rows):
        yield slice(first, first + rows)


_dot.register_fake(lambda query, source, grid: query.new_empty(grid.shape[:-1]))
_sum.register_fake(lambda weights, source, grid: source.new_empty(*source.shape[:2], *grid.shape[2:4]))
_backward.register_fake(lambda fine, weights, source, grid: (source.new_empty(source.shape), torch.empty_like(grid)))


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _dot_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, source, grid = ctx.saved_tensors
    return _sum(gradient, source, grid), *_backward(query, gradient, source, grid)


def _sum_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights, source, grid = ctx.saved_tensors
    return _dot(gradient, source, grid), *_backward(gradient, weights, source, grid)


_dot.register_autograd(_dot_backward, setup_context=_keep_inputs)
_sum.register_autograd(_sum_backward, setup_context=_keep_inputs)


def _dot_in_graph(query: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    """Compute √N points at a time, because the number of strips is unknown in an exported graph for all sizes."""
    products = [(query[:, :, None] * _sample(source, points)).sum(1) for points in _split(grid)]
    return torch.cat(products, dim=1)


def _sum_in_graph(weights: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    parts = zip(_split(weights), _split(grid), strict=True)
    first, *others = ((weight[:, None] * _sample(source, points)).sum(2) for weight, points in parts)
    return sum(others, start=first)


def _split(points: Tensor) -> tuple[Tensor, ...]:
    return torch.split(points, math.isqrt(points.shape[1]), dim=1)


def deformable_attention(levels: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute Σ_l Σ_n weights_ln(q) · level_l(locations_ln(q)) for each head of each query q (UN-EPT, Eq. 6).

    Levels are read bilinearly and are zero outside. One level is sampled at a time, in short strips of queries and with
    the heads in the batch (see `sampled_sum`). The samples of all queries are therefore never stored at once, forward
    or backward, even for a single level.

    Args:
        levels: values of each level, `(B, M, d, h_l, w_l)`, with M heads of d channels.
        locations: points `(B, Q, M, L, N, 2)`, x and y in 0..1 from edge to edge of a level; float32 or wider.
        weights: weights `(B, Q, M, L, N)`.

    Returns:
        The sums `(B, Q, M · d)`, of the values' type.
    """
    batch, _, heads = locations.shape[:3]
    total: Tensor | None = None
    for index, level in enumerate(levels):
        # A strip of `sampled_sum` has whole rows; with one query per row, it can have any number of queries.
        grid = (2 * locations[:, :, :, index] - 1).permute(0, 2, 3, 1, 4).flatten(0, 1)  # (B · M, N, Q, 2)
        shares = weights[:, :, :, index].permute(0, 2, 3, 1).flatten(0, 1)  # (B · M, N, Q)
        attended = sampled_sum(shares[..., None], level.flatten(0, 1), grid[:, :, :, None])  # (B · M, d, Q, 1)
        total = attended if total is None else total + attended
    assert total is not None
    return torch.unflatten(total[..., 0], 0, (batch, heads)).flatten(1, 2).mT  # (B, M · d, Q) → (B, Q, M · d)


def pixel_centres(size: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Return x and y in 0..1 of the pixels of a map of this height and width, row by row: `(h · w, 2)`, float32."""
    height, width = size
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    grid = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1)
    return grid.flatten(0, 1)  # (h, w, 2) → (h · w, 2)


class DeformableAttention(nn.Module):
    """Attention of each query to N pixels of each level; the query predicts points and weights (UN-EPT, Eqs. 2–4, 6).

    A_m = softmax(Q W_m^Q U_m^wts) over all levels and points, and positions are c_q + Q W_m^Q U_m^pos, without keys.
    W_m^Q U_m is one linear layer, initialised as in Deformable DETR. Head m points in direction 2π m / M, point n is n
    pixels away (see `reach`), and all weights are equal. Names and shapes of parameters are Deformable DETR's.

    Taps: `offsets` Δ (B, Q, M, L, N, 2), x and y in pixels of a level; `locations`, the sampled positions, 0..1 within
    the level; `weights` (B, Q, M, L, N), which sum to one over L and N.

    Args:
        channels: channels of queries, values and result, a multiple of the heads.
        heads: number of heads, M.
        levels: number of levels, L.
        points: number of points on each level, N.
        reach: distance of the last point at the start, in pixels of a level; None for N, as in Deformable DETR.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int, reach: float | None = None) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.offsets, self.locations, self.weights = Tap(), Tap(), Tap()
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (M, 2)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # on a square around the query
        steps = torch.arange(1, points + 1) * ((points if reach is None else reach) / points)
        offsets = directions[:, None, None] * steps[:, None]  # (M, 1, N, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, levels, -1, -1).flatten())

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Attend from each query to its points on all levels.

        Args:
            query: queries `(B, Q, C)`.
            reference: positions c_q, `(Q, 2)`, x and y in 0..1 (see `pixel_centres`).
            values: pixels of all levels, row by row, one level after another, `(B, S, C)`.
            sizes: height and width of each level.

        Returns:
            The attended values `(B, Q, C)`.
        """
        shape = (self.heads, self.levels, self.points)
        weights = torch.unflatten(self.attention_weights(query), 2, (self.heads, -1)).softmax(-1)  # (B, Q, M, L · N)
        weights = self.weights(torch.unflatten(weights, 3, shape[1:]))  # (B, Q, M, L, N)
        # The bias may be many pixels; a sum in bfloat16 would round predictions to an eighth of a pixel.
        offsets = upcast(F.linear(query, self.sampling_offsets.weight)) + upcast(self.sampling_offsets.bias)
        offsets = self.offsets(torch.unflatten(offsets, 2, (*shape, 2)))  # Δ_ln: (B, Q, M, L, N, 2)
        unit = reference.new_ones(())  # sizes are symbols in an exported graph, and a new tensor cannot contain symbols
        extent = torch.stack([torch.stack([unit * width, unit * height]) for height, width in sizes])  # (L, 2)
        locations = self.locations(reference[:, None, None, None] + offsets / extent[:, None])  # c_q + Δ_ln
        projected = self.value_proj(values).split([height * width for height, width in sizes], dim=1)
        levels = [
            torch.unflatten(torch.unflatten(value.mT, 1, (self.heads, -1)), 3, tuple(size))  # (B, M, d, h, w)
            for value, size in zip(projected, sizes, strict=True)
        ]
        return self.output_proj(deformable_attention(levels, locations, weights))
