"""The plain parts, from other papers, that the systems here are built on and compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import Context, Levels, contexts, fuses, merges
from crispseg.nn import BatchNorm2d, conv_bn_relu, resize


@contexts.register("conv")
class ConvContext(nn.Module):
    """No context: one 3×3 convolution (the lateral of the coarsest level in an FPN)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(in_channels, channels, 3)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        return self.conv(feature), Context()


@contexts.register("ppm")
class PyramidPooling(nn.Module):
    """Pyramid pooling module (Zhao et al., *Pyramid Scene Parsing Network*, CVPR 2017, §3.2).

    Averages over 1×1, 2×2, 3×3 and 6×6 bins, a 1×1 convolution each, brought back to the feature's size and
    joined with it by a 1×1 bottleneck.
    """

    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size),
                nn.Conv2d(in_channels, channels, 1, bias=False),
                BatchNorm2d(channels),
            )
            for size in self.bins
        )
        self.bottleneck = nn.Sequential(
            *conv_bn_relu(in_channels + len(self.bins) * channels, channels, 1), nn.Dropout2d(0.1)
        )

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        size = feature.shape[-2:]
        pooled = [resize(stage(feature), size, align_corners=True) for stage in self.stages]
        return self.bottleneck(torch.cat([*pooled, feature], dim=1)), Context()


@fuses.register("add")
class UpsampleAdd(nn.Module):
    """Bilinear upsampling and addition (Lin et al., *Feature Pyramid Networks*, CVPR 2017)."""

    def __init__(self, fine_channels: int, coarse_channels: int) -> None:
        super().__init__()
        same = fine_channels == coarse_channels
        self.project = nn.Identity() if same else nn.Conv2d(coarse_channels, fine_channels, 1)

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        return fine + resize(self.project(coarse), fine.shape[-2:], align_corners=True)


@merges.register("concat")
class Concat(nn.Module):
    """All levels upsampled to the finest one, concatenated, joined by a 3×3 convolution."""

    def __init__(self, levels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        size = finest.shape[-2:]
        upsampled = [resize(level, size, align_corners=True) for level in coarser]
        merged: Tensor = self.conv(torch.cat([finest, *upsampled], dim=1))
        return merged
