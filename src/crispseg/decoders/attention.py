"""Context parts that attend to all pixels at less than the square of their number: those of UN-EPT's Table 8."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import Context, contexts
from crispseg.nn import BinAverages, conv_bn_relu


class CrissCrossAttention(nn.Module):
    """x + γ Σ A v over the row and the column of each pixel, itself once (Huang et al., *CCNet*, ICCV 2019, §3.2).

    γ is learned from 0. Queries and keys have an eighth of the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` → the same."""
        batch, _, height, width = x.shape
        embedded = self.query(x), self.key(x), self.value(x)
        columns = [_merged(each.permute(0, 3, 2, 1)) for each in embedded]  # (N · W, H, c)
        rows = [_merged(each.permute(0, 2, 3, 1)) for each in embedded]  # (N · H, W, c)
        down, across = (torch.bmm(query, key.mT) for query, key, _ in (columns, rows))  # (N · W, H, H), (N · H, W, W)
        itself = torch.diag_embed(down.new_full((height,), float("-inf")))  # the pixel is in its row too
        down = torch.unflatten(down + itself.expand(down.shape[0], -1, -1), 0, (batch, width))  # (N, W, H, H)
        across = torch.unflatten(across, 0, (batch, height))  # (N, H, W, W)
        weights = torch.cat([down.transpose(1, 2), across], dim=3).float().softmax(3).to(x.dtype)  # (N, H, W, H + W)
        down, across = torch.split(weights, [height, width], dim=3)
        of_columns = torch.unflatten(torch.bmm(_merged(down.transpose(1, 2)), columns[2]), 0, (batch, width))
        of_rows = torch.unflatten(torch.bmm(_merged(across), rows[2]), 0, (batch, height))  # (N, H, W, C)
        return x + self.gamma * (of_columns.permute(0, 3, 2, 1) + of_rows.permute(0, 3, 1, 2))


def _merged(x: Tensor) -> Tensor:
    """Its first two dimensions as one. Contiguous without asking whether it is, which an exported graph would keep."""
    return x.clone(memory_format=torch.contiguous_format).flatten(0, 1)


@contexts.register("crisscross")
class RecurrentCrissCross(nn.Module):
    """Recurrent criss-cross attention (Huang et al., *CCNet*, ICCV 2019, §3.1 and 3.3).

    A 3×3 convolution, the same criss-cross attention twice, by which each pixel sees all, a 3×3 convolution, and
    another one that joins it with the feature.
    """

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

    The non-local block of a 3×3 convolution's output, whose keys and values are averages over 1×1, 3×3, 6×6 and 8×8
    bins, 110 in all; joined with its input by a 1×1 convolution.
    """

    bins = (1, 3, 6, 8)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.reduce = conv_bn_relu(in_channels, channels, 3)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.pool = BinAverages(self.bins)
        self.output = nn.Conv2d(inner, channels, 1)
        self.join = conv_bn_relu(2 * channels, channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Context]:
        x = self.reduce(feature)
        query = self.theta(x).flatten(2)  # (N, Ĉ, h · w)
        key, value = (torch.cat(self.pool(embed(x)), dim=2) for embed in (self.phi, self.g))  # (N, Ĉ, 110)
        weights = torch.bmm(query.mT, key).float().softmax(2).to(value.dtype)  # (N, h · w, 110)
        y = torch.unflatten(torch.bmm(value, weights.mT), 2, feature.shape[-2:])  # (N, Ĉ, h, w)
        return self.join(torch.cat([self.output(y), x], dim=1)), Context()
