"""Merge parts: one feature map out of all levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import Levels, merges
from crispseg.nn import conv_bn_relu, resize


@merges.register("concat")
class Concat(nn.Module):
    """All levels upsampled to the finest one, concatenated, joined by a 3×3 convolution."""

    align_corners = True

    def __init__(self, levels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        size = finest.shape[-2:]
        upsampled = [resize(level, size, align_corners=self.align_corners) for level in coarser]
        merged: Tensor = self.conv(torch.cat([finest, *upsampled], dim=1))
        return merged
