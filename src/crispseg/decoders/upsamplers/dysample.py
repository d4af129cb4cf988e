"""DySample: Liu et al., *Learning to Upsample by Learning to Sample*, ICCV 2023 (arXiv 2308.15085), §3."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import moved, projection
from crispseg.errors import CrispsegError
from crispseg.nn import Tap, resize, upcast


@fuses.register("dysample")
class DySample(nn.Module):
    """Bilinear sampling of the coarse level at points that it predicts itself, then addition: `fine + upsampled`.

    A linear layer predicts the offsets of the four subpixels of each coarse pixel, for each group of channels. A static
    scope factor keeps them small, O = 0.25 · linear(X) (Eq. 4), or a dynamic one, O = 0.5 · sigmoid(linear₁(X)) ·
    linear₂(X) (Eq. 5, DySample+). Points start where bilinear upsampling reads ("bilinear initialization"). This is the
    style "LP", a linear layer before the pixel shuffle. The paper upsamples by a whole factor; here, offsets of the
    doubled level are resized bilinearly to other sizes.

    Taps: `offset` (N · G, 2, H, W), x and y in coarse pixels; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        groups: G, groups of channels, each with its own points.
        scope: scope factor, static or dynamic.

    Raises:
        CrispsegError: the groups do not divide the channels.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        groups: PositiveInt = 4,
        scope: Literal["static", "dynamic"] = "static",
    ) -> None:
        super().__init__()
        if fine_channels % groups:
            raise CrispsegError(f"groups is {groups}, which does not divide {fine_channels} channels; give a divisor")
        self.align_corners, self.groups = align_corners, groups
        self.project = projection(coarse_channels, fine_channels)
        self.predict_offset = nn.Conv2d(fine_channels, 4 * 2 * groups, 1)
        nn.init.normal_(self.predict_offset.weight, std=0.001)
        nn.init.zeros_(self.predict_offset.bias)  # type: ignore[arg-type]
        self.predict_scope = nn.Conv2d(fine_channels, 4 * 2 * groups, 1, bias=False) if scope == "dynamic" else None
        if self.predict_scope is not None:
            nn.init.zeros_(self.predict_scope.weight)
        self.offset, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        scope = 0.25 if self.predict_scope is None else 0.5 * torch.sigmoid(self.predict_scope(coarse))
        subpixels = nn.functional.pixel_shuffle(scope * self.predict_offset(coarse), 2)  # (N, G · 2, 2h, 2w)
        offset = upcast(resize(subpixels, size, align_corners=self.align_corners))
        offset = self.offset(torch.unflatten(offset, 1, (self.groups, 2)).flatten(0, 1))
        return fine + self.upsampled(self.sampled(coarse, offset))

    def sampled(self, coarse: Tensor, offset: Tensor) -> Tensor:
        """Sample `coarse` (N, C, h, w) at fine pixels moved by `offset` (N · G, 2, H, W); return (N, C, H, W)."""
        points = moved(offset[:, 0], offset[:, 1], coarse.shape[-2:], self.align_corners)
        grid = torch.stack(points, dim=-1)  # (N · G, H, W, 2)
        groups = upcast(torch.unflatten(coarse, 1, (self.groups, -1)).flatten(0, 1))
        sampled = F.grid_sample(groups, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return torch.unflatten(sampled, 0, (-1, self.groups)).flatten(1, 2).to(coarse.dtype)
