"""What `crisp` does with SFNet's flow beyond its paper: two convolutions are one, points are kept within a level."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MARGIN = 0.01  # of a pixel


def products(x: Tensor, compress: nn.Module, kernel: Tensor) -> Tensor:
    """What each point of a kernel makes of `x` compressed by a 1×1 convolution, before the points are added up.

    Two products with weights become one, with their product. What it gives can be upsampled as the compressed level
    would be, and has fewer channels: 18 in place of 128 for a level of 256 and the two of a flow.

    Args:
        x: `(N, C, H, W)`.
        compress: the 1×1 convolution, of weight `(D, C, 1, 1)` and without bias.
        kernel: `(O, D, k, k)`.

    Returns:
        `(N, O · k², H, W)`, for `shifted_sum`.
    """
    points = kernel.permute(0, 2, 3, 1).flatten(0, 2)  # (O · k², D)
    both: Tensor = points @ compress.weight.flatten(1)  # type: ignore[operator]
    return F.conv2d(x, both[..., None, None])


def shifted_sum(products: Tensor, kernel: Tensor) -> Tensor:
    """`products` (N, O · k², H, W), each moved to where its point of the kernel is, added up → (N, O, H, W)."""
    out_channels, _, side, _ = kernel.shape
    height, width = products.shape[-2:]
    points = torch.unflatten(F.pad(products, [side // 2] * 4), 1, (out_channels, side, side))  # (N, O, k, k, ·, ·)
    first, *others = (points[:, :, y, x, y : y + height, x : x + width] for y in range(side) for x in range(side))
    return sum(others, start=first)


def kept_within(points: Tensor, size: int) -> Tensor:
    """Coordinates along a side of `size` pixels, brought within the centres of the outermost ones.

    Those beyond, of which a ring is at a flow of zero already where the level is the coarser one, have the gradient at
    the edge where that leads inward. Without a gradient Adam would make large steps of what a point's neighbours leave,
    and the whole flow might drift away. With one that leads outward too, its steps would add up for ever, as the point
    does not move.

    Args:
        points: any shape, -1..1 from edge to edge.
        size: pixels.
    """
    bounded: Tensor = _KeptWithin.apply(points, max(1 - (1 + 2 * MARGIN) / size, 0))
    return bounded


class _KeptWithin(torch.autograd.Function):
    """Clamps to ±`bound`."""

    @staticmethod
    def forward(points: Tensor, bound: float) -> Tensor:
        return points.clamp(-bound, bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        points, ctx.bound = inputs
        ctx.save_for_backward(points)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        # Descent moves points against their gradient.
        outward = (points > ctx.bound) & (gradient < 0) | (points < -ctx.bound) & (gradient > 0)
        return gradient.masked_fill(outward, 0), None
