"""SFNet: Li et al., *Semantic Flow for Fast and Accurate Scene Parsing*, ECCV 2020 (arXiv 2002.10120).

Section and equation numbers are the paper's; see docs/papers/sfnet.md for what it leaves open and how that is settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders import Context, Levels, fuses, merges
from crispseg.models.registry import preset
from crispseg.models.topdown import top_down
from crispseg.nn import Tap, conv_bn_relu, resize
from crispseg.nn.flow import kept_within, products, shifted_sum

MAX_DISPLACEMENT = 4


@fuses.register("fam")
class FlowAlignment(nn.Module):
    """Flow Alignment Module (§3.2, Fig. 3a), with the addition that follows it: `fine + warp(coarse, flow)`.

    Both levels are compressed to half the width by 1×1 convolutions; a single 3×3 convolution on the two predicts, for
    each fine pixel, where to look in the coarse level.

    Taps: `fine` (N, C, H, W) and `coarse` (N, C, h, w), the levels F_(l-1) and F_l; `flow` (N, 2, H, W), the x and y
    displacement Δ in half pixels of the fine level; `warped`, F̃ of Eq. 3; `correlation` where there is one.

    Args:
        fine_channels, coarse_channels: channels of the two levels.
        flow_upsampling: how the compressed coarse level is upsampled (Table 2a); deconvolution doubles it by a 4×4
            transposed convolution and fits that to the fine level bilinearly.
        flow_kernel: side of the convolution that predicts the flow (Table 2b).
        flow_net: what that convolution sees: both compressed levels (simple, as in FlowNet-S), or their correlation (as
            in FlowNet-C, Table 2c).
    """

    align_corners = True
    composed = False
    """Compute the flow, which is linear in both levels, without compressing them: see `products`."""

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        *,
        flow_upsampling: Literal["bilinear", "nearest", "deconvolution"] = "bilinear",
        flow_kernel: Literal[1, 3, 5, 7] = 3,
        flow_net: Literal["simple", "correlation"] = "simple",
    ) -> None:
        super().__init__()
        common = fine_channels // 2
        same = fine_channels == coarse_channels
        self.project = nn.Identity() if same else nn.Conv2d(coarse_channels, fine_channels, 1, bias=False)
        self.compress_fine = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.compress_coarse = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.nearest = flow_upsampling == "nearest"
        self.enlarge = (
            nn.ConvTranspose2d(common, common, 4, stride=2, padding=1, bias=False)
            if flow_upsampling == "deconvolution"
            else nn.Identity()
        )
        self.correlation = Tap() if flow_net == "correlation" else None
        seen = 2 * common if self.correlation is None else (2 * MAX_DISPLACEMENT + 1) ** 2
        self.predict_flow = nn.Conv2d(seen, 2, flow_kernel, padding=flow_kernel // 2, bias=False)
        self.composable = self.correlation is None and flow_upsampling != "deconvolution"
        self.fine, self.coarse, self.flow, self.warped = Tap(), Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """`fine` (N, C, H, W) and `coarse` (N, C', h, w) → (N, C, H, W)."""
        return fine + self.align(fine, coarse)

    def align(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """`coarse` (N, C', h, w), brought to the pixels of `fine` (N, C, H, W) → (N, C, H, W), without the addition."""
        fine, coarse = self.fine(fine), self.coarse(self.project(coarse))
        flow = self.flow(self._flow(fine, coarse))
        warped: Tensor = self.warped(warp(coarse, flow, align_corners=self.align_corners))
        return warped

    def _flow(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Eq. 1: Δ = conv(cat(F_l, F_{l-1})), (N, 2, H, W)."""
        if self.composed and self.composable:
            of_coarse, of_fine = self.predict_flow.weight.chunk(2, dim=1)
            upsampled = self._upsample(products(coarse, self.compress_coarse, of_coarse), fine.shape[-2:])
            return shifted_sum(upsampled + products(fine, self.compress_fine, of_fine), of_fine)
        upsampled = self._upsample(self.compress_coarse(coarse), fine.shape[-2:])
        compressed = self.compress_fine(fine)
        if self.correlation is None:
            seen = torch.cat([upsampled, compressed], dim=1)
        else:
            seen = self.correlation(correlate(compressed, upsampled, MAX_DISPLACEMENT))
        flow: Tensor = self.predict_flow(seen)
        return flow

    def _upsample(self, compressed: Tensor, size: Sequence[int]) -> Tensor:
        if self.nearest:
            return F.interpolate(compressed, size=list(size), mode="nearest-exact")
        return resize(self.enlarge(compressed), size, align_corners=self.align_corners)


@merges.register("aligned")
class AlignedConcat(nn.Module):
    """§3.3, "we also replace these up-sampling operations with the proposed FAM": as `concat`, warped to the finest.

    Options are those of `FlowAlignment`.
    """

    def __init__(
        self,
        levels: int,
        channels: int,
        out_channels: int,
        *,
        flow_upsampling: Literal["bilinear", "nearest", "deconvolution"] = "bilinear",
        flow_kernel: Literal[1, 3, 5, 7] = 3,
        flow_net: Literal["simple", "correlation"] = "simple",
    ) -> None:
        super().__init__()
        options: Any = {"flow_upsampling": flow_upsampling, "flow_kernel": flow_kernel, "flow_net": flow_net}
        self.fams = nn.ModuleList(FlowAlignment(channels, channels, **options) for _ in range(levels - 1))
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        aligned = [finest]
        fam: Any
        for fam, level in zip(self.fams, coarser, strict=True):
            aligned.append(fam.align(finest, level))
        merged: Tensor = self.conv(torch.cat(aligned, dim=1))
        return merged


def correlate(fine: Tensor, coarse: Tensor, max_displacement: int) -> Tensor:
    """FlowNet-C's correlation layer (Dosovitskiy et al., *FlowNet*, ICCV 2015, §3) with patches of one pixel.

    Two maps (N, C, H, W) → (N, (2d + 1)², H, W): for each displacement of up to d pixels, row by row from (-d, -d), the
    mean over channels of `fine` times the displaced `coarse`, which is zero outside.
    """
    height, width = fine.shape[-2:]
    padded = F.pad(coarse, [max_displacement] * 4)
    reach = range(2 * max_displacement + 1)
    # One product at a time, and autograd keeps views of `padded` alone: no displacement holds a copy of the map.
    products = [(fine * padded[..., y : y + height, x : x + width]).mean(1) for y in reach for x in reach]
    return torch.stack(products, dim=1)


def warp(coarse: Tensor, flow: Tensor, *, align_corners: bool = True) -> Tensor:
    """Sample `coarse` (N, C, h, w) bilinearly at every fine pixel displaced by `flow` (N, 2, H, W) → (N, C, H, W).

    Eqs. 2 and 3 in the coordinates of the released code, for checkpoints in its format: with -1..1 from the first pixel
    centre to the last (`align_corners=True`), the flow moves a point by Δ / (W, H), and nothing is seen outside.
    Without, -1..1 is from edge to edge, and pixels outside are as those at the edge. Coordinates are float32 always.

    Where gradients are wanted without `align_corners`, points beyond the centres of the outermost pixels are read a
    hundredth of a pixel within them, and the flow there has the gradient of that, where it leads inward.
    """
    height, width = flow.shape[-2:]
    # Not linspace: the exporters would build the size of their example image into it.
    if align_corners:
        ys, xs = (torch.arange(size, device=flow.device) / max(size - 1, 1) * 2 - 1 for size in (height, width))
    else:
        ys, xs = ((torch.arange(size, device=flow.device) * 2 + 1) / size - 1 for size in (height, width))
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    points = [xs + dx / width, ys[:, None] + dy / height]
    if flow.requires_grad and not align_corners and not torch.compiler.is_exporting():
        points = [kept_within(each, size) for each, size in zip(points, coarse.shape[:-3:-1], strict=True)]
    grid = torch.stack(points, dim=-1)  # (N, H, W, 2)
    outside = "zeros" if align_corners else "border"
    warped = F.grid_sample(coarse.float(), grid, mode="bilinear", padding_mode=outside, align_corners=align_corners)
    return warped.to(coarse.dtype)


sfnet = preset(
    "sfnet",
    top_down,
    "The aligned FPN decoder (§3.3, Fig. 3c) on any backbone.",
    part="fam",
    fixed={"expansion": 1, "centred": False, "enlarge": 1.0},
    width=None,
    context="ppm",
)
