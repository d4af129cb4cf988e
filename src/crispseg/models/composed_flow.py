"""What `crisp` adds to SFNet's flow: its two convolutions are composed to one, and points are kept within a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.models.sfnet import FlowAlignment, FlowKernel, FlowNet, FlowUpsampling, warp
from crispseg.nn import resize

MARGIN = 0.01  # of a pixel


class ComposedFlowAlignment(FlowAlignment):
    """`FlowAlignment` between levels that lie on each other by the centres of their pixels, at less cost.

    The flow is linear in both levels, so the compressed levels need not be computed: see `products`. A correlation and
    an upsampling that is learned are not composed.

    Args:
        fine_channels, coarse_channels: channels of the two levels.
        align_corners: levels lie on each other by their corner pixels, and the warp is SFNet's.
        flow_upsampling, flow_kernel, flow_net: see `FlowAlignment`.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = False,
        *,
        flow_upsampling: FlowUpsampling = "bilinear",
        flow_kernel: FlowKernel = 3,
        flow_net: FlowNet = "simple",
    ) -> None:
        super().__init__(
            fine_channels, coarse_channels, flow_upsampling=flow_upsampling, flow_kernel=flow_kernel, flow_net=flow_net
        )
        self.align_corners = align_corners
        self.composed = flow_net == "simple" and flow_upsampling != "deconvolution"

    def flow_between(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Eq. 1 of SFNet, (N, 2, H, W)."""
        if not self.composed:
            return super().flow_between(fine, coarse)
        of_coarse, of_fine = self.predict_flow.weight.chunk(2, dim=1)
        upsampled = self.upsample(products(coarse, self.compress_coarse, of_coarse), fine.shape[-2:])
        return shifted_sum(upsampled + products(fine, self.compress_fine, of_fine), of_fine)

    def upsample(self, compressed: Tensor, size: Sequence[int]) -> Tensor:
        """The coarse level at the fine level's size."""
        if self.nearest or self.align_corners:
            return super().upsample(compressed, size)
        return resize(self.enlarge(compressed), size, align_corners=False)

    def warp(self, coarse: Tensor, flow: Tensor) -> Tensor:
        """The coarse level, moved by the flow; see `warp_within`."""
        return warp(coarse, flow) if self.align_corners else warp_within(coarse, flow)


def products(x: Tensor, compress: nn.Conv2d, kernel: Tensor) -> Tensor:
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
    points = kernel.permute(0, 2, 3, 1).flatten(0, 2)  # (O, D, k, k) → (O · k², D)
    both = points @ compress.weight.flatten(1)  # (O · k², C)
    return F.conv2d(x, both[..., None, None])


def shifted_sum(products: Tensor, kernel: Tensor) -> Tensor:
    """`products` (N, O · k², H, W), each moved to where its point of the kernel is, added up → (N, O, H, W)."""
    out_channels, _, side, _ = kernel.shape
    height, width = products.shape[-2:]
    points = torch.unflatten(F.pad(products, [side // 2] * 4), 1, (out_channels, side, side))  # (N, O, k, k, ·, ·)
    first, *others = (points[:, :, y, x, y : y + height, x : x + width] for y in range(side) for x in range(side))
    return sum(others, start=first)


def warp_within(coarse: Tensor, flow: Tensor) -> Tensor:
    """As SFNet's `warp`, by the centres of pixels: (N, C, h, w) and a flow (N, 2, H, W) → (N, C, H, W).

    Coordinates -1..1 are from edge to edge, the flow moves a point by Δ / (W, H), and pixels outside are as those at
    the edge. Coordinates are float32 always. Where gradients are wanted, points beyond the centres of the outermost
    pixels are read a hundredth of a pixel within them, and the flow there has the gradient of that, where it leads
    inward.
    """
    height, width = flow.shape[-2:]
    ys, xs = ((torch.arange(size, device=flow.device) * 2 + 1) / size - 1 for size in (height, width))
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    points = [xs + dx / width, ys[:, None] + dy / height]
    if flow.requires_grad and not torch.compiler.is_exporting():
        sizes = coarse.shape[-1], coarse.shape[-2]
        points = [kept_within(each, size) for each, size in zip(points, sizes, strict=True)]
    grid = torch.stack(points, dim=-1)  # (N, H, W, 2)
    warped = F.grid_sample(coarse.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(coarse.dtype)


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
