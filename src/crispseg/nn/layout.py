"""What is done across channels, in the layout of the input: plane by plane (NCHW) or pixel by pixel (channels last)."""

from __future__ import annotations

import torch
from torch import Tensor


def mix_channels(weights: Tensor, x: Tensor) -> Tensor:
    """Sums of the channels of `x` (B, C, H, W) with `weights` (B, C', C) → (B, C', H, W), in the layout of `x`."""
    pixels = x.flatten(2)  # (B, C, H · W)
    if is_channels_last(x):
        return torch.unflatten(torch.bmm(pixels.mT, weights.mT).mT, 2, x.shape[-2:])  # in memory (B, H, W, C')
    return torch.unflatten(torch.bmm(weights, pixels), 2, x.shape[-2:])


def channel_softmax(x: Tensor) -> Tensor:
    """Softmax over the channels of `x` (B, C, H, W), in its layout; `torch.softmax` always writes plane by plane."""
    if is_channels_last(x):
        return torch.softmax(x.movedim(1, 3), dim=3).movedim(3, 1)
    return torch.softmax(x, dim=1)


def is_channels_last(x: Tensor) -> bool:
    """Whether `x` (B, C, H, W) is pixel by pixel and not plane by plane too; never while a graph is exported.

    Such a graph is for all sizes and must not ask.
    """
    if torch.compiler.is_exporting():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
