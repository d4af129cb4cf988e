"""Sampling points that stay inside a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MARGIN = 0.01  # minimum distance in pixels from points to the centres of the outermost pixels


def keep_inside(points: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
    """Move points just inside the centres of the outermost pixels, if they need a gradient; see `KeptInside`.

    Without a gradient, sampling with padding by the border has the same result up to a hundredth of a pixel.

    Args:
        points: x and y of the points, -1..1 from edge to edge of a level.
        size: height and width of the level.
    """
    if not points[0].requires_grad or torch.compiler.is_exporting():
        return list(points)
    bounds = [max(1 - (1 + 2 * MARGIN) / side, 0) for side in (size[1], size[0])]
    return [KeptInside.apply(coordinates, bound) for coordinates, bound in zip(points, bounds, strict=True)]


class KeptInside(torch.autograd.Function):
    """Clamp coordinates -1..1 from edge to edge of a level to ±`bound`, just inside the outermost pixels' centres.

    Points beyond get the gradient at the edge if it leads inward. In a coarser level, a ring of points is beyond even
    at a flow of zero. Without any gradient, Adam would make large steps from the neighbours' small gradients, and the
    whole flow might drift away. An outward gradient would push a point outward for ever, because clamping stops its
    motion.
    """

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
        # Gradient descent moves points against their gradient.
        outward = (points > ctx.bound) & (gradient < 0) | (points < -ctx.bound) & (gradient > 0)
        return gradient.masked_fill(outward, 0), None
