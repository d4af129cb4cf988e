"""DDSM: Shi et al., *Dynamic Dual Sampling Module for Fine-Grained Semantic Segmentation*, ICIP 2021.

Section and equation numbers are the paper's; see docs/papers/ddsm.md for open details and how they are settled.
The authors published no code.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.config.ranges import Channels, Count
from crispseg.decoders import Context, fitted, fuses
from crispseg.errors import CrispsegError
from crispseg.models.deeplabv3plus import deeplabv3plus
from crispseg.models.frame import PartChoice
from crispseg.models.registry import variant
from crispseg.models.upernet import upernet
from crispseg.nn import Tap, average_bins, projection, resize, sampled_dot, sampled_sum, upcast

Similarity: TypeAlias = Literal["dot", "cosine"]


class DynamicSampler(nn.Module):
    """Dynamic sampler F (§2.1, Eq. 1, Fig. 2): N = k × k points p + p_n + Δp_n, and scalars Δm_n, for each p.

    As in DCNv2, offsets start at zero, and modulations after a sigmoid.

    Taps: `offset` (B, 2N, H, W), each point's displacement Δp_n in x and y, in pixels, row by row of the grid R;
    `modulation` (B, N, H, W), Δm_n in 0..1.

    Args:
        channels: channels of the features that predict the sampling points.
        points: N, the square of an odd number.
        open_start: start with modulations of 0.95 instead of one half, so that the values pass.
    """

    grid: Tensor

    def __init__(self, channels: int, points: int, open_start: bool = False) -> None:
        super().__init__()
        k = math.isqrt(points)
        if k * k != points or k % 2 == 0:
            raise CrispsegError(f"{points} points do not form a k×k grid around a pixel; give 1, 9, 25 or 49")
        self.points = points
        self.predict = nn.Conv2d(channels, 3 * points, 1)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]
        if open_start:
            nn.init.constant_(self.predict.bias[2 * points :], 3.0)  # type: ignore[index]
        self.offset, self.modulation = Tap(), Tap()
        steps = torch.arange(k, dtype=torch.float32) - k // 2
        grid = torch.stack([steps.repeat(k), steps.repeat_interleave(k)], dim=1)  # R: (N, 2), x and y
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points of `x` (B, C, H, W) for `sampled_dot`, (B, N, H, W, 2), and Δm, (B, N, H, W).

        Coordinates are float32, or wider if `x` is.
        """
        offset, modulation = self.predict(x).split([2 * self.points, self.points], dim=1)
        modulation = self.modulation(torch.sigmoid(modulation))
        height, width = x.shape[-2:]
        offset = self.offset(upcast(offset))
        dx, dy = torch.unflatten(offset, 1, (self.points, 2)).unbind(2)  # (B, N, H, W) each
        xs, ys = (torch.arange(size, device=x.device, dtype=offset.dtype) for size in (width, height))
        p_n = self.grid.to(offset.dtype)
        px = xs + p_n[:, 0, None, None] + dx  # p + p_n + Δp_n
        py = ys[:, None] + p_n[:, 1, None, None] + dy
        return torch.stack([(2 * px + 1) / width - 1, (2 * py + 1) / height - 1], dim=-1), modulation


class Affinity(nn.Module):
    """Sum in Eqs. 2 and 3: Σ_n δ[query(p) · F(key)(p, n)] F(value)(p, n), with δ the softmax over the N points.

    Both F sample at the same points with the same modulation; the key predicts them. The similarity is the dot product,
    or the cosine times √C, whose spread does not depend on the levels' scale.

    Taps: `weights` (B, N, H, W), δ[…]; the taps of `sampler`.
    """

    def __init__(self, channels: int, points: int, similarity: Similarity = "dot", open_start: bool = False) -> None:
        super().__init__()
        self.sampler = DynamicSampler(channels, points, open_start)
        self.cosine = similarity == "cosine"
        self.weights = Tap()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from `query` to `key` (B, C, H, W) and `value` (B, C', H, W); return (B, C', H, W)."""
        grid, modulation = self.sampler(key)
        if self.cosine:
            query = F.normalize(upcast(query), dim=1) * math.sqrt(query.shape[1])
            key = F.normalize(upcast(key), dim=1)
        # Δm_n is a scalar, so it can scale the products instead of the samples.
        weights = self.weights(torch.softmax(sampled_dot(query, key, grid) * modulation, dim=1))
        return sampled_sum(weights * modulation, value, grid)


class PositionEmbedding(nn.Module):
    """Learned vector for each position: the sum of a row vector and a column vector, as in DETR, for any size.

    It learns the vectors of `length` rows and columns, and interpolates them for other sizes.
    """

    has_positions = True
    length = 50

    def __init__(self, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.rows = nn.Parameter(0.02 * torch.randn(1, channels, self.length, 1))
        self.columns = nn.Parameter(0.02 * torch.randn(1, channels, 1, self.length))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + e, (B, C, H, W), for `x` (B, C, H, W)."""
        rows = resize(self.rows, (x.shape[2], 1), align_corners=self.align_corners)
        columns = resize(self.columns, (1, x.shape[3]), align_corners=self.align_corners)
        return x + (rows + columns).to(x.dtype)


class SpatialAffinity(nn.Module):
    """Spatial-wise dynamic affinity modelling (§2.2, Eq. 2, Fig. 3a): each fine pixel attends to N coarse ones.

    Args:
        channels: channels of both levels.
        pixels: N.
        align_corners: align levels at corner pixels, or at pixel centres.
        similarity, open_start: see `DDSM`.
    """

    def __init__(
        self,
        channels: int,
        pixels: int,
        align_corners: bool = True,
        *,
        similarity: Similarity = "dot",
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.e_pl, self.e_ph = (PositionEmbedding(channels, align_corners) for _ in range(2))
        self.w_theta = nn.Conv2d(channels, channels, 1, bias=False)
        self.w_phi = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.w_g = nn.Conv2d(channels, channels, 1, bias=False)
        if open_start:
            nn.init.dirac_(self.w_g.weight)
        self.affinity = Affinity(channels, pixels, similarity, open_start)

    def forward(self, x_l: Tensor, x_h: Tensor) -> Tensor:
        """Return x_Sout (B, c, H, W) for `x_l` (B, c, H, W) and `x_h` (B, c, h, w)."""
        x_l = self.e_pl(x_l)
        x_h = self.e_ph(resize(x_h, x_l.shape[-2:], align_corners=self.align_corners))
        query, value = self.w_theta(x_l), self.w_g(x_h)
        key = self.w_phi(torch.cat([x_l, x_h], dim=1))
        return self.affinity(query, key, value)


class ChannelAffinity(nn.Module):
    """Channel-wise dynamic affinity modelling (§2.2, Eq. 3, Fig. 3b): each fine channel attends to N_c coarse ones.

    The c channels form an image of √c × √c pixels, so that the dynamic sampler can select some of them.

    Args:
        channels: c, of both levels; a perfect square.
        sampled: N_c.
        pooled: a, the side to which both levels are averaged for the affinity.
        downsampled: d, the side to which the coarse level is averaged for the values.
        similarity, open_start: see `DDSM`.
    """

    pools_globally = True

    def __init__(
        self,
        channels: int,
        sampled: int,
        *,
        pooled: int = 8,
        downsampled: int = 16,
        similarity: Similarity = "dot",
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.side = math.isqrt(channels)
        if self.side**2 != channels:
            raise CrispsegError(
                f"{channels} channels do not form a square image, which DDSM samples; use 16, 64 or 256"
            )
        self.pooled, self.downsampled = pooled, downsampled
        self.w_alpha = nn.Conv2d(channels, channels, 1, bias=False)
        self.w_beta = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.w_gamma = nn.Conv2d(channels, channels, 1, bias=False)
        if open_start:
            nn.init.dirac_(self.w_gamma.weight)
        self.affinity = Affinity(pooled**2, sampled, similarity, open_start)

    def forward(self, x_l: Tensor, x_h: Tensor) -> Tensor:
        """Return x_Cout (B, c, H, W) for `x_l` (B, c, H, W) and `x_h` (B, c, h, w)."""
        x_lp, x_hp = (average_bins(level, self.pooled) for level in (x_l, x_h))  # (B, c, a, a) each
        x_hd = average_bins(x_h, self.downsampled)  # (B, c, d, d)
        maps = self.w_alpha(x_lp), self.w_beta(torch.cat([x_lp, x_hp], dim=1)), self.w_gamma(x_hd)
        # (B, c, a, a) → (B, a², √c, √c)
        query, key, value = (torch.unflatten(feature.flatten(2).mT, 2, (self.side,) * 2) for feature in maps)
        attended = self.affinity(query, key, value)  # (B, d², √c, √c)
        x_cout = torch.unflatten(attended.flatten(2).mT, 2, (self.downsampled,) * 2)  # (B, c, d, d)
        return resize(x_cout, x_l.shape[-2:], align_corners=False)


@fuses.register("ddsm")
@fitted(pixels=9, reduced=16, similarity="cosine", open_start=True)
class DDSM(nn.Module):
    """Dynamic Dual Sampling Module (§2.2, Fig. 3): `fine + spatial + channel`.

    1×1 convolutions reduce both levels to c channels, and map the sum of both affinities to the fine level's
    width. A level that already has c channels is used directly.

    Taps: `x_l`, `x_h`, the reduced levels; `x_Sout`, `x_Cout` (B, c, H, W); and the taps of `Affinity`.

    Args:
        pixels: N, the number of pixels that each fine pixel samples.
        channels: N_c, the number of channels that each fine channel samples.
        affinity: both parts, or only spatial or channel (Table 1, "+S" and "+C").
        reduced: c, the channels inside the module, a perfect square.
        pooled: a, the side to which both levels are averaged for the channels' affinity.
        downsampled: d, the side to which the coarse level is averaged for its values.
        similarity: similarity of query and key: their dot product (Eqs. 2 and 3), or cosine.
        open_start: start as upsampling: values are the coarse level, and modulations start at 0.95.

    Raises:
        CrispsegError: N or N_c is not an odd square; c is not a perfect square, and channels are sampled.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        pixels: Count = 25,
        channels: Count = 9,
        affinity: Literal["both", "spatial", "channel"] = "both",
        reduced: Channels = 64,
        pooled: Count = 8,
        downsampled: Count = 16,
        similarity: Similarity = "dot",
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.reduce_fine = projection(fine_channels, reduced)
        self.reduce_coarse = projection(coarse_channels, reduced)
        self.expand = projection(reduced, fine_channels)
        spatial, channel = affinity != "channel", affinity != "spatial"
        start: dict[str, Any] = {"similarity": similarity, "open_start": open_start}
        sides: dict[str, Any] = {"pooled": pooled, "downsampled": downsampled}
        self.spatial = SpatialAffinity(reduced, pixels, align_corners, **start) if spatial else None
        self.channel = ChannelAffinity(reduced, channels, **sides, **start) if channel else None
        self.x_l, self.x_h, self.x_Sout, self.x_Cout = Tap(), Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (B, C, H, W) and `coarse` (B, C', h, w) to (B, C, H, W)."""
        x_l, x_h = self.x_l(self.reduce_fine(fine)), self.x_h(self.reduce_coarse(coarse))
        outputs = []
        if self.spatial is not None:
            outputs.append(self.x_Sout(self.spatial(x_l, x_h)))
        if self.channel is not None:
            outputs.append(self.x_Cout(self.channel(x_l, x_h)))
        return fine + self.expand(sum(outputs))


ddsm_upernet = variant(
    "ddsm_upernet",
    upernet,
    "UPerNet with DDSMs instead of upsampling (§2.2, Plugin into Two Architectures).",
    fuse=PartChoice("ddsm"),
)
ddsm_deeplabv3plus = variant(
    "ddsm_deeplabv3plus",
    deeplabv3plus,
    "DeepLabV3+ with one DDSM that fuses ASPP's output into C2; only C2 is classified (§2.2).",
    fuse=PartChoice("ddsm"),
)
