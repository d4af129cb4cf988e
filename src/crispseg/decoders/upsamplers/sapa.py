"""SAPA: Lu et al., *SAPA: Similarity-Aware Point Affiliation for Feature Upsampling*, NeurIPS 2022
(arXiv 2209.12866)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import Window, projection, window_at
from crispseg.nn import Tap, upcast
from crispseg.nn.rows import maps_of, rows_of


class NormedProjection(nn.Module):
    """Layer norm over the channels of each pixel, and a 1×1 convolution.

    The convolution is linear, so mean and deviation are applied to its few outputs; the normalised map is not stored.
    """

    def __init__(self, channels: int, out_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(out_channels, channels), std=0.02))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Project `x` (N, C, H, W) to (N, C', H, W)."""
        gains = self.weight * self.gain
        centred = gains - gains.mean(1, keepdim=True)  # removes the mean of the pixel's channels
        wide = torch.promote_types(x.dtype, torch.float32)
        squares = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide).square() / x.shape[1]
        variance = squares - x.mean(1, keepdim=True, dtype=wide).square()
        projected = F.conv2d(x, centred[..., None, None]) * (variance.clamp(min=0) + self.eps).rsqrt()
        return projected + (self.weight @ self.shift)[:, None, None]


@fuses.register("sapa")
class SAPA(nn.Module):
    """Reassembly by the similarity of each fine pixel to the coarse pixels around it: `fine + upsampled`.

    This is SAPA-B, with the low-rank bilinear similarity. The weight of coarse pixel y in the K × K window of fine
    pixel x is the softmax over the window of ⟨P_x x, P_y y⟩, both after layer norm. The coarse pixels themselves are
    summed.

    Taps: `kernels` (N, H, W, K²), row by row; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        kernel: K.
        embedding: d, the rank of the similarity.
        distance_prior: start close to bilinear upsampling (see `window_at`). Without it, kernels start as averages, as
            in the paper, which ignores distances.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        kernel: Literal[3, 5, 7] = 5,
        embedding: PositiveInt = 32,
        distance_prior: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners, self.side, self.distance_prior = align_corners, kernel, distance_prior
        self.project = projection(coarse_channels, fine_channels)
        self.p_x, self.p_y = (NormedProjection(fine_channels, embedding) for _ in range(2))
        self.kernels, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse = self.project(coarse)
        window, prior = window_at(fine.shape[-2:], coarse, self.side, self.align_corners)
        logits = self.similarities(upcast(self.p_x(fine)), upcast(self.p_y(coarse)), window)
        kernels = torch.softmax(logits + prior if self.distance_prior else logits, dim=3)
        return fine + self.upsampled(window.sum(coarse, self.kernels(kernels)))

    def similarities(self, queries: Tensor, keys: Tensor, window: Window) -> Tensor:
        """Return ⟨x, y⟩ of `queries` (N, d, H, W) and the `keys` (N, d, h, w) in their windows, (N, H, W, K²)."""
        (height, width), (h, w) = queries.shape[-2:], keys.shape[-2:]
        if self.align_corners or torch.compiler.is_exporting() or (height, width) != (2 * h, 2 * w):
            products = torch.bmm(F.embedding(window.rows, rows_of(keys)), rows_of(queries)[..., None])
            return torch.unflatten(products[..., 0], 0, tuple(window.shape))
        # Four fine pixels have the same window, so a quarter of the windows is enough.
        shared, _ = window_at((h, w), keys, self.side, align_corners=False)
        subpixels = torch.unflatten(rows_of(F.pixel_unshuffle(queries, 2)), 1, (-1, 4))  # (N · h · w, d, 4)
        products = torch.bmm(F.embedding(shared.rows, rows_of(keys)), subpixels)  # (N · h · w, K², 4)
        return F.pixel_shuffle(maps_of(products.flatten(1), shared.shape), 2).movedim(1, 3)
