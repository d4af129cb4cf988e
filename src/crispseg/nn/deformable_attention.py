"""Multi-head attention to a few sampled pixels of each level of a pyramid, in plain PyTorch.

Zhu et al., *Deformable DETR*, ICLR 2021, as UN-EPT uses it (Zhu et al., *A Unified Efficient Pyramid Transformer for
Semantic Segmentation*, §3.1). No build step; any size per level; differentiable in all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import CrispsegError
from crispseg.nn.record import Tap
from crispseg.nn.sampling import sampled_sum


def deformable_attention(levels: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Σ_l Σ_n weights_ln(q) · level_l(locations_ln(q)) for each head of each query q (UN-EPT, Eq. 6).

    Levels are read bilinearly and are zero outside. One level is sampled at a time, in short strips of queries and with
    the heads in the batch (see `sampled_sum`): neither the levels × points × heads samples of all queries nor those of
    one level are ever held, forward or backward.

    Args:
        levels: the values of each level, `(B, M, d, h_l, w_l)`: M heads of d channels.
        locations: `(B, Q, M, L, N, 2)`, x and y in 0..1 from edge to edge of a level; float32 or wider.
        weights: `(B, Q, M, L, N)`.

    Returns:
        `(B, Q, M · d)`, of the values' type.
    """
    batch, _, heads = locations.shape[:3]
    total: Tensor | None = None
    for index, level in enumerate(levels):
        # A strip of `sampled_sum` is a number of rows: with one query a row, any number of queries.
        grid = (2 * locations[:, :, :, index] - 1).permute(0, 2, 3, 1, 4).flatten(0, 1)  # (B · M, N, Q, 2)
        shares = weights[:, :, :, index].permute(0, 2, 3, 1).flatten(0, 1)  # (B · M, N, Q)
        attended = sampled_sum(shares[..., None], level.flatten(0, 1), grid[:, :, :, None])  # (B · M, d, Q, 1)
        total = attended if total is None else total + attended
    assert total is not None
    return torch.unflatten(total[..., 0], 0, (batch, heads)).flatten(1, 2).mT  # (B, M · d, Q) → (B, Q, M · d)


def pixel_centres(size: Sequence[int], device: torch.device | None = None) -> Tensor:
    """x and y in 0..1 of the pixels of a map of this height and width, row by row: `(h · w, 2)`, float32."""
    height, width = size
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    grid = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1)
    return grid.flatten(0, 1)  # (h, w, 2) → (h · w, 2)


class DeformableAttention(nn.Module):
    """Each query attends to N pixels of each level, which it chooses and weighs itself (UN-EPT, Eqs. 2–4 and 6).

    A_m = softmax(Q W_m^Q U_m^wts) over all levels and points; positions c_q + Q W_m^Q U_m^pos; there are no keys. W_m^Q
    U_m is one linear layer, as in Deformable DETR, and so is its initialisation: head m looks in direction 2π m / M,
    point n at n pixels of a level, all with the same weight. Names and shapes of parameters are Deformable DETR's.

    Taps: `offsets` Δ (B, Q, M, L, N, 2), x and y in pixels of a level; `locations`, where they lead, in 0..1 of the
    level, outside of it beyond; `weights` (B, Q, M, L, N), which sum to one over L and N.

    Args:
        channels: of queries, values and result.
        heads: M.
        levels: L.
        points: N, on each level.

    Raises:
        CrispsegError: the channels do not divide into the heads.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        if channels % heads:
            raise CrispsegError(f"{channels} channels do not divide into {heads} heads; use a multiple of {heads}")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.offsets, self.locations, self.weights = Tap(), Tap(), Tap()
        self._initialise()

    def _initialise(self) -> None:
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (M, 2)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # on a square around the query
        steps = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * steps[:, None]  # (M, 1, N, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Args:
            query: `(B, Q, C)`.
            reference: c_q, `(Q, 2)`, x and y in 0..1 (see `pixel_centres`).
            values: the pixels of all levels, row by row, one level after another, `(B, S, C)`.
            sizes: height and width of each level.

        Returns:
            `(B, Q, C)`.
        """
        shape = (self.heads, self.levels, self.points)
        weights = torch.unflatten(self.attention_weights(query), 2, (self.heads, -1)).softmax(-1)  # (B, Q, M, L · N)
        weights = self.weights(torch.unflatten(weights, 3, shape[1:]))  # (B, Q, M, L, N)
        locations = self.locations(self._locations(query, reference, sizes))
        projected = self.value_proj(values).split([height * width for height, width in sizes], dim=1)
        levels = [
            torch.unflatten(torch.unflatten(value.mT, 1, (self.heads, -1)), 3, tuple(size))  # (B, M, d, h, w)
            for value, size in zip(projected, sizes, strict=True)
        ]
        attended: Tensor = self.output_proj(deformable_attention(levels, locations, weights))
        return attended

    def _locations(self, query: Tensor, reference: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """c_q + Δ_ln, `(B, Q, M, L, N, 2)`."""
        layer = self.sampling_offsets
        wide = torch.promote_types(query.dtype, torch.float32)
        # The bias may be many pixels: added in bfloat16, it would leave an eighth of a pixel of what is predicted.
        offsets = F.linear(query, layer.weight).to(wide) + layer.bias.to(wide)
        offsets = self.offsets(torch.unflatten(offsets, 2, (self.heads, self.levels, self.points, 2)))
        one = reference.new_ones(())  # sizes are symbols in an exported graph, which a new tensor cannot hold
        extent = torch.stack([torch.stack([one * width, one * height]) for height, width in sizes])  # (L, 2)
        located: Tensor = reference[:, None, None, None] + offsets / extent[:, None]
        return located
