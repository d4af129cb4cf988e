"""SAPA: Lu et al., *SAPA: Similarity-Aware Point Affiliation for Feature Upsampling*, NeurIPS 2022
(arXiv 2209.12866)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import Window, window_at
from crispseg.nn import Tap, projection, upcast

RANK = 32
"""Dimension d of the embeddings that are compared."""


@fuses.register("sapa")
class SAPA(nn.Module):
    """Reassembly by the similarity of each fine pixel to the coarse pixels around it: `fine + upsampled`.

    This is SAPA-B, with the low-rank bilinear similarity. The weight of coarse pixel y in the 5×5 window of fine pixel
    x is the softmax over the window of ⟨P_x x, P_y y⟩, both after layer norm. The coarse pixels themselves are summed.

    Taps: `kernels` (N, H, W, 25), row by row; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        distance_prior: start close to bilinear upsampling (see `window_at`), or as averages, as in the paper.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, align_corners: bool = True, *, distance_prior: bool = True
    ) -> None:
        super().__init__()
        self.align_corners, self.distance_prior = align_corners, distance_prior
        self.project = projection(coarse_channels, fine_channels)
        self.norm_x, self.norm_y = nn.LayerNorm(fine_channels), nn.LayerNorm(fine_channels)
        self.p_x, self.p_y = nn.Linear(fine_channels, RANK), nn.Linear(fine_channels, RANK)
        for layer in (self.p_x, self.p_y):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.kernels, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse = self.project(coarse)
        window, prior = window_at(fine.shape[-2:], coarse, self.align_corners)
        queries = upcast(self.p_x(self.norm_x(fine.movedim(1, 3))))  # (N, H, W, d)
        keys = upcast(self.p_y(self.norm_y(coarse.movedim(1, 3))))  # (N, h, w, d)
        logits = self.similarities(queries, keys, window)
        kernels = torch.softmax(logits + prior * self.distance_prior, dim=3)
        return fine + self.upsampled(window.sum(coarse, self.kernels(kernels)))

    def similarities(self, queries: Tensor, keys: Tensor, window: Window) -> Tensor:
        """Return the products of `queries` (N, H, W, d) with `keys` (N, h, w, d) in their windows, (N, H, W, 25)."""
        (count, height, width, _), (h, w) = queries.shape, keys.shape[1:3]
        rows = keys.flatten(0, 2)
        if self.align_corners or torch.compiler.is_exporting() or (height, width) != (2 * h, 2 * w):
            products = torch.bmm(F.embedding(window.rows, rows), queries.flatten(0, 2)[..., None])
            return torch.unflatten(products[..., 0], 0, (count, height, width))
        # Four fine pixels have the same window, so a quarter of the windows is enough.
        shared, _ = window_at((h, w), keys.movedim(3, 1), align_corners=False)
        subpixels = queries.view(count, h, 2, w, 2, RANK).permute(0, 1, 3, 5, 2, 4).reshape(-1, RANK, 4)
        products = torch.bmm(F.embedding(shared.rows, rows), subpixels)  # (N · h · w, 25, 4)
        return products.view(count, h, w, -1, 2, 2).permute(0, 1, 4, 2, 5, 3).reshape(count, height, width, -1)
