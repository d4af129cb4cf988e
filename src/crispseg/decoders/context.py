"""Context parts, which compute the coarsest level. They come from other papers; the models here build on them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.config.ranges import Counts
from crispseg.decoders.parts import Context, contexts
from crispseg.nn import BatchNorm2d, Tap, average_bins, conv_bn_relu, resize


@contexts.register("conv")
class ConvContext(nn.Module):
    """No context: one 3×3 convolution (the lateral of the coarsest level in an FPN)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(in_channels, channels, 3)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        return self.conv(feature), Context()


@contexts.register("linear")
class LinearContext(nn.Module):
    """No context and no nonlinearity: one 1×1 convolution, for levels that are summed."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        return self.conv(feature), Context()


@contexts.register("ppm")
class PyramidPooling(nn.Module):
    """Pyramid pooling module (Zhao et al., *Pyramid Scene Parsing Network*, CVPR 2017, §3.2).

    It averages over 1×1, 2×2, 3×3 and 6×6 bins, applies a 1×1 convolution to each, and upsamples them. A convolution,
    the bottleneck, joins them with the feature.

    Taps: `pooled` (N, 4 C', h, w), the upsampled maps.

    Args:
        bottleneck: kernel size of the bottleneck: 1, as in SFNet's counts, or 3, as in PSPNet's and UPerNet's code.
    """

    bins = (1, 2, 3, 6)
    pools_globally = True

    def __init__(
        self, in_channels: int, channels: int, align_corners: bool = True, *, bottleneck: Literal[1, 3] = 1
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Identity(), nn.Conv2d(in_channels, channels, 1, bias=False), BatchNorm2d(channels))
            for _ in self.bins  # the first layer replaces the pooling, which has an index in SFNet's checkpoints
        )
        self.bottleneck = nn.Sequential(
            *conv_bn_relu(in_channels + len(self.bins) * channels, channels, bottleneck), nn.Dropout2d(0.1)
        )
        self.pooled = Tap()

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        size = feature.shape[-2:]
        stages = zip(self.stages, self.bins, strict=True)
        pooled = [
            resize(stage(average_bins(feature, bins)), size, align_corners=self.align_corners) for stage, bins in stages
        ]
        return self.bottleneck(torch.cat([self.pooled(torch.cat(pooled, dim=1)), feature], dim=1)), Context()


@contexts.register("nonlocal")
class NonLocal(nn.Module):
    """Non-local block, embedded Gaussian (Wang et al., *Non-local Neural Networks*, CVPR 2018, §3.2 and 3.3).

    It computes y = softmax(θ(x)ᵀ φ(x)) g(x) and z = W_z y + x, with half of x's channels inside. The batch norm after
    W_z starts at zero, so the block starts as the identity. The 3×3 convolution of `conv` follows.
    """

    pools_globally = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inner = max(in_channels // 2, 1)
        self.theta, self.phi, self.g = (nn.Conv2d(in_channels, inner, 1) for _ in range(3))
        norm = BatchNorm2d(in_channels)
        nn.init.zeros_(norm.weight)
        self.w_z = nn.Sequential(nn.Conv2d(inner, in_channels, 1, bias=False), norm)
        self.conv = conv_bn_relu(in_channels, channels, 3)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        theta, phi, g = (embed(feature).flatten(2) for embed in (self.theta, self.phi, self.g))  # (N, C/2, h · w)
        # The paper's softmax has no factor 1/√C.
        if torch.compiler.is_exporting():  # attention would fix in the graph that there are several pixels
            y = torch.bmm(g, torch.softmax(torch.bmm(theta.mT, phi), dim=-1).mT)  # (N, C/2, h · w)
        else:  # stores no h · w × h · w affinities if a kernel is available
            query, key, value = (maps.mT.contiguous().unsqueeze(1) for maps in (theta, phi, g))  # (N, 1, h · w, C/2)
            y = F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1).mT
        y = torch.unflatten(y, 2, feature.shape[-2:])  # (N, C/2, h · w) → (N, C/2, h, w)
        return self.conv(feature + self.w_z(y)), Context()


@contexts.register("aspp")
class AtrousSpatialPyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., *Rethinking Atrous Convolution*, arXiv 1706.05587, §3.3).

    A 1×1 convolution joins a 1×1 convolution, three dilated 3×3 convolutions and the mean over the image.

    Args:
        channels: channels of each branch and of the result.
        rates: dilations of the three 3×3 convolutions; the default is the paper's for a feature of stride 16.
    """

    pools_globally = True

    def __init__(self, in_channels: int, channels: int, *, rates: Counts = (6, 12, 18)) -> None:
        super().__init__()
        dilated = (conv_bn_relu(in_channels, channels, 3, dilation=rate) for rate in rates)
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, channels, 1), *dilated])
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(in_channels, channels, 1))
        self.join = conv_bn_relu((len(self.branches) + 1) * channels, channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        image = self.image(feature).expand(-1, -1, *feature.shape[-2:])
        seen = [branch(feature) for branch in self.branches]
        return self.join(torch.cat([*seen, image], dim=1)), Context()


@contexts.register("denseaspp")
class DenseASPP(nn.Module):
    """Densely connected ASPP (Yang et al., *DenseASPP for Semantic Segmentation in Street Scenes*, CVPR 2018, §3).

    The input of each dilated 3×3 convolution is the feature and the outputs of all earlier ones. A 1×1 convolution
    first reduces it to half of the feature's C channels; the dilated one outputs C / 8. A 1×1 convolution joins all.
    """

    rates = (3, 6, 12, 18, 24)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        reduced, growth = max(in_channels // 2, 1), max(in_channels // 8, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                BatchNorm2d(in_channels + index * growth),
                nn.ReLU(),
                nn.Conv2d(in_channels + index * growth, reduced, 1, bias=False),
                BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
                nn.Conv2d(reduced, growth, 3, padding=rate, dilation=rate, bias=False),
            )
            for index, rate in enumerate(self.rates)
        )
        self.join = conv_bn_relu(in_channels + len(self.rates) * growth, channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        for layer in self.layers:
            feature = torch.cat([feature, layer(feature)], dim=1)
        return self.join(feature), Context()


class CrissCrossAttention(nn.Module):
    """x + γ Σ A v over row and column of each pixel, the pixel counted once (Huang et al., *CCNet*, ICCV 2019, §3.2).

    γ is learned from 0. Queries and keys have an eighth of the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within `x` `(N, C, H, W)`; return the same shape."""
        batch, _, height, width = x.shape
        embedded = self.query(x), self.key(x), self.value(x)
        columns = [_merged(embedding.permute(0, 3, 2, 1)) for embedding in embedded]  # (N · W, H, c)
        rows = [_merged(embedding.permute(0, 2, 3, 1)) for embedding in embedded]  # (N · H, W, c)
        down, across = (torch.bmm(query, key.mT) for query, key, _ in (columns, rows))  # (N · W, H, H), (N · H, W, W)
        itself = torch.diag_embed(down.new_full((height,), float("-inf")))  # the row also contains the pixel
        down = torch.unflatten(down + itself.expand(down.shape[0], -1, -1), 0, (batch, width))  # (N, W, H, H)
        across = torch.unflatten(across, 0, (batch, height))  # (N, H, W, W)
        weights = torch.cat([down.transpose(1, 2), across], dim=3).float().softmax(3).to(x.dtype)  # (N, H, W, H + W)
        down, across = torch.split(weights, [height, width], dim=3)
        of_columns = torch.unflatten(torch.bmm(_merged(down.transpose(1, 2)), columns[2]), 0, (batch, width))
        of_rows = torch.unflatten(torch.bmm(_merged(across), rows[2]), 0, (batch, height))  # (N, H, W, C)
        return x + self.gamma * (of_columns.permute(0, 3, 2, 1) + of_rows.permute(0, 3, 1, 2))


def _merged(x: Tensor) -> Tensor:
    """Merge the first two dimensions. An exported graph would keep a check for contiguity, so it always copies."""
    return x.clone(memory_format=torch.contiguous_format).flatten(0, 1)


@contexts.register("crisscross")
class RecurrentCrissCross(nn.Module):
    """Recurrent criss-cross attention (Huang et al., *CCNet*, ICCV 2019, §3.1 and 3.3).

    It applies a 3×3 convolution, the same criss-cross attention twice, which connects all pixels, and a 3×3
    convolution. Another one joins the result with the feature.
    """

    pools_globally = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(in_channels, channels, 3)
        self.attention = CrissCrossAttention(channels)
        self.conv = conv_bn_relu(channels, channels, 3)
        self.join = conv_bn_relu(in_channels + channels, channels, 3)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        attended = self.conv(self.attention(self.attention(self.reduce(feature))))
        return self.join(torch.cat([feature, attended], dim=1)), Context()


@contexts.register("apnb")
class AsymmetricPyramidNonLocal(nn.Module):
    """Asymmetric pyramid non-local block (Zhu et al., *Asymmetric Non-local Neural Networks*, ICCV 2019, §3.3).

    It is a non-local block on a 3×3 convolution's output. Keys and values are averages over 1×1, 3×3, 6×6 and 8×8 bins,
    110 in all. A 1×1 convolution joins the result with the block's input.
    """

    pools_globally = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.reduce = conv_bn_relu(in_channels, channels, 3)
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.output = nn.Conv2d(inner, channels, 1)
        self.join = conv_bn_relu(2 * channels, channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        x = self.reduce(feature)
        y = attend_to_bins(self.theta(x), self.phi(x), self.g(x))
        return self.join(torch.cat([self.output(y), x], dim=1)), Context()


class AsymmetricFusionNonLocal(nn.Module):
    """Asymmetric fusion non-local block (the same paper, §3.4), before `AsymmetricPyramidNonLocal`.

    Each position of the deepest feature attends to averages over bins of the stage before it. A 1×1 convolution joins
    the result with the deepest feature and keeps its width. Ĉ is an eighth of this width.
    """

    def __init__(self, stage_channels: int, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi, self.g = (nn.Conv2d(stage_channels, inner, 1) for _ in range(2))
        self.output = nn.Conv2d(inner, channels, 1)
        self.join = conv_bn_relu(2 * channels, channels, 1)

    def forward(self, stage: Tensor, deepest: Tensor) -> Tensor:
        """Fuse `(N, stage_channels, h', w')` and `(N, channels, h, w)` to `(N, channels, h, w)`."""
        y = attend_to_bins(self.theta(deepest), self.phi(stage), self.g(stage))
        return self.join(torch.cat([self.output(y), deepest], dim=1))


def attend_to_bins(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from each position of `query` (N, Ĉ, h, w) to averages of `key` and `value` over bins: (N, Ĉ, h, w)."""
    keys, values = all_bins(key), all_bins(value)
    weights = torch.bmm(query.flatten(2).mT, keys).float().softmax(2).to(values.dtype)  # (N, h · w, 110)
    return torch.unflatten(torch.bmm(values, weights.mT), 2, query.shape[-2:])  # (N, Ĉ, h, w)


def all_bins(feature: Tensor) -> Tensor:
    """Return the averages of `feature` (N, C, h, w) over 1×1, 3×3, 6×6 and 8×8 bins, (N, C, 110)."""
    return torch.cat([average_bins(feature, size).flatten(2) for size in (1, 3, 6, 8)], dim=2)
