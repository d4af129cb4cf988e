"""Merge parts: one feature map out of all levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Levels, merges
from crispseg.nn import BatchNorm2d, conv_bn_relu, resize


@merges.register("concat")
class Concat(nn.Module):
    """All levels upsampled to the finest one, concatenated, joined by a 3×3 convolution."""

    def __init__(self, levels: int, channels: int, out_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        size = finest.shape[-2:]
        upsampled = [resize(level, size, align_corners=self.align_corners) for level in coarser]
        merged: Tensor = self.conv(torch.cat([finest, *upsampled], dim=1))
        return merged


@merges.register("sum")
class Sum(nn.Module):
    """The finest level, to which the coarser ones were added on the way; batch norm, ReLU.

    With 1×1 convolutions before it that neither normalise nor rectify, it is the decoder of SegFormer (Xie et al.,
    NeurIPS 2021, §3.2, Eq. 4) in another form. There a linear layer sees each level, and another one all levels
    upsampled and concatenated. What is linear twice is linear once, and a sum; so each level is multiplied where it is,
    at a twentieth of the multiply-adds on a light backbone. Levels are upsampled from each to the next here, and to the
    finest at once there.
    """

    linear = True
    """Levels come to it neither normalised, nor rectified, nor smoothed."""

    def __init__(self, levels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        same = channels == out_channels
        self.project = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1, bias=False)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, levels: Levels) -> Tensor:
        return F.relu(self.norm(self.project(levels[0])), inplace=True)
