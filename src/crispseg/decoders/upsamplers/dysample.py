"""DySample: Liu et al., *Learning to Upsample by Learning to Sample*, ICCV 2023 (arXiv 2308.15085), §3."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import moved
from crispseg.nn import Tap, projection, resize, upcast


@fuses.register("dysample")
class DySample(nn.Module):
    """Bilinear sampling of the coarse level at points that it predicts itself, then addition: `fine + upsampled`.

    A linear layer predicts the offsets of the four subpixels of each coarse pixel, for each of four groups of channels
    (style "LP"). A static scope factor keeps them small: O = 0.25 · linear(X) (Eq. 4). Points start where bilinear
    upsampling reads ("bilinear initialization"). The paper upsamples by a whole factor; here, offsets of the doubled
    level are resized bilinearly to other sizes.

    Taps: `offset` (N · G, 2, H, W), x and y in coarse pixels; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners, self.groups = align_corners, math.gcd(4, fine_channels)
        self.project = projection(coarse_channels, fine_channels)
        self.predict_offset = nn.Conv2d(fine_channels, 4 * 2 * self.groups, 1)
        nn.init.normal_(self.predict_offset.weight, std=0.001)
        nn.init.zeros_(self.predict_offset.bias)  # type: ignore[arg-type]
        self.offset, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        subpixels = F.pixel_shuffle(0.25 * self.predict_offset(coarse), 2)  # (N, G · 2, 2h, 2w)
        offset = upcast(resize(subpixels, size, align_corners=self.align_corners))
        offset = self.offset(torch.unflatten(offset, 1, (self.groups, 2)).flatten(0, 1))
        grid = torch.stack(moved(offset[:, 0], offset[:, 1], coarse.shape[-2:], self.align_corners), dim=-1)
        groups = upcast(torch.unflatten(coarse, 1, (self.groups, -1)).flatten(0, 1))  # (N · G, C / G, h, w)
        sampled = F.grid_sample(groups, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return fine + self.upsampled(torch.unflatten(sampled, 0, (-1, self.groups)).flatten(1, 2).to(coarse.dtype))
