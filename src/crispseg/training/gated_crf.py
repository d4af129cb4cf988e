"""Gated CRF loss: labels of strokes spread to unlabelled pixels of similar colour.

Obukhov et al., "Gated CRF Loss for Weakly Supervised Semantic Image Segmentation", 2019. In contrast to the paper,
colours are in units of their standard deviation in the crop, and kernels have the sum 1.
"""

from __future__ import annotations

from itertools import product

import torch.nn.functional as F
from torch import Tensor

STRIDE = 4  # side of the squares over which images and logits are averaged
RADIUS = 3  # largest distance of a pair along each axis, in squares
PLACE_SD = 6.0  # standard deviation of the kernel in squares
COLOR_SD = 0.25  # and in standard deviations of the colours


def gated_crf(logits: Tensor, images: Tensor) -> Tensor:
    """Return Σ k(i, j) (1 - p_i · p_j) / Σ k(i, j) over pairs of neighbours i, j in a window.

    k(i, j) = exp(-|x_i - x_j|² / 2 PLACE_SD² - |c_i - c_j|² / 2 COLOR_SD²), |c_i - c_j|² averaged over channels.
    Logits are `(N, C, H, W)`, and normalised images `(N, channels, H, W)`.
    """
    probabilities = F.avg_pool2d(logits, STRIDE).softmax(1)
    colors = F.avg_pool2d(images.to(logits.dtype), STRIDE)
    colors = colors / colors.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    height, width = colors.shape[-2:]
    differing, kernels = logits.new_zeros(()), logits.new_full((), 1e-6)
    for dy, dx in product(range(min(RADIUS + 1, height)), range(-min(RADIUS, width - 1), min(RADIUS + 1, width))):
        if (dy, dx) <= (0, 0):  # the other half of the window has the same pairs
            continue
        here = ..., slice(height - dy), slice(max(-dx, 0), width - max(dx, 0))
        there = ..., slice(dy, height), slice(max(dx, 0), width + min(dx, 0))
        exponent = (dy**2 + dx**2) / PLACE_SD**2 + (colors[here] - colors[there]).square().mean(1) / COLOR_SD**2
        kernel = (-exponent / 2).exp()
        same = (probabilities[here] * probabilities[there]).sum(1)
        differing, kernels = differing + (kernel * (1 - same)).sum(), kernels + kernel.sum()
    return differing / kernels
