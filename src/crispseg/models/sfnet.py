"""SFNet: Li et al., *Semantic Flow for Fast and Accurate Scene Parsing*, ECCV 2020 (arXiv 2002.10120).

The file follows the paper, with its section and equation numbers. It has the Flow Alignment Module (§3.2), the network
(§3.3) and the alternatives in Table 2 (§4.1). docs/papers/sfnet.md lists open details and how they are settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.config.ranges import Count
from crispseg.decoders import Context, Levels, fitted, fuses, merges
from crispseg.errors import CrispsegError
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice, top_down
from crispseg.models.registry import models
from crispseg.nn import Tap, conv_bn_relu, keep_inside, projection, resize

LIGHT_BACKBONES = ("df1", "df2", "stdc1", "stdc2", "shufflenetv2_x1_0")
"""Backbones with levels of 64 channels: DF and STDC in the released code, ShuffleNet by Table 1(d)."""

FlowUpsampling: TypeAlias = Literal["bilinear", "nearest", "deconvolution"]
FlowKernel: TypeAlias = Literal[1, 3, 5, 7]
FlowLayers: TypeAlias = Literal[1, 2]
FlowNet: TypeAlias = Literal["simple", "correlation"]
FlowCoordinates: TypeAlias = Literal["released", "paper"]


@fuses.register("fam")
class FlowAlignment(nn.Module):
    """Flow Alignment Module (§3.2, Fig. 3a), including the following addition: `fine + warp(coarse, flow)`.

    1×1 convolutions compress both levels to half the width. A single 3×3 convolution on both predicts, for each fine
    pixel, the position to read in the coarse level. At pixel centres, the products of both weights are computed first,
    because the flow is linear in both levels: see `products`.

    Taps: `fine` (N, C, H, W) and `coarse` (N, C, h, w), the levels F_(l-1) and F_l; `flow` (N, 2, H, W), the x and y
    displacement Δ in half pixels of the fine level; `warped`, F̃ of Eq. 3; `correlation`, if used.

    Args:
        align_corners: align levels at corner pixels as in the released code, or at pixel centres.
        flow_upsampling: upsampling of the compressed coarse level (Table 2a); deconvolution doubles it by a 4×4
            transposed convolution, then resizes it bilinearly to the fine level.
        flow_kernel: side of the convolution that predicts the flow (Table 2b).
        flow_layers: convolutions that predict the flow: one (Eq. 1 and the code), or two (the text of §3.2), of which
            the first has batch norm and ReLU.
        flow_net: input of that convolution: both compressed levels (simple, as in FlowNet-S), or their correlation (as
            in FlowNet-C, Table 2c).
        flow_reach: largest displacement of the correlation, in pixels of the fine level.
        flow_coordinates: scale of the flow: as in the released code, or literally by Eq. 2 (paper).

    Raises:
        CrispsegError: Eq. 2's coordinates are requested without aligned corners.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        flow_upsampling: FlowUpsampling = "bilinear",
        flow_kernel: FlowKernel = 3,
        flow_layers: FlowLayers = 1,
        flow_net: FlowNet = "simple",
        flow_reach: Count = 4,
        flow_coordinates: FlowCoordinates = "released",
    ) -> None:
        super().__init__()
        self.reach, self.literal = flow_reach, flow_coordinates == "paper"
        if self.literal and not align_corners:
            raise CrispsegError("flow_coordinates is paper, which needs align_corners; leave out flow_coordinates")
        self.align_corners = align_corners
        linear = flow_layers == 1 and flow_net == "simple" and flow_upsampling != "deconvolution"
        self.composed = linear and not align_corners
        common = fine_channels // 2
        self.project = projection(coarse_channels, fine_channels)
        self.compress_fine = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.compress_coarse = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.nearest = flow_upsampling == "nearest"
        deconvolve = flow_upsampling == "deconvolution"
        self.enlarge = nn.ConvTranspose2d(common, common, 4, 2, 1, bias=False) if deconvolve else nn.Identity()
        self.correlation = Tap() if flow_net == "correlation" else None
        seen = 2 * common if self.correlation is None else (2 * flow_reach + 1) ** 2
        two = flow_layers == 2
        self.encode_flow = conv_bn_relu(seen, common, flow_kernel) if two else nn.Identity()
        self.predict_flow = nn.Conv2d(common if two else seen, 2, flow_kernel, padding=flow_kernel // 2, bias=False)
        self.fine, self.coarse, self.flow, self.warped = Tap(), Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        return fine + self.align(fine, coarse)

    def align(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Align `coarse` (N, C', h, w) with `fine` (N, C, H, W); return (N, C, H, W), without the addition."""
        fine, coarse = self.fine(fine), self.coarse(self.project(coarse))
        flow = self.flow(self.flow_between(fine, coarse))
        return self.warped(self.warp(coarse, flow))

    def flow_between(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute Eq. 1: Δ = conv(cat(F_l, F_{l-1})), (N, 2, H, W)."""
        if self.composed:
            of_coarse, of_fine = self.products()
            return self.flow_of(F.conv2d(fine, of_fine[..., None, None]), F.conv2d(coarse, of_coarse[..., None, None]))
        upsampled = self.upsample(self.compress_coarse(coarse), fine.shape[-2:])
        compressed = self.compress_fine(fine)
        if self.correlation is None:
            seen = torch.cat([upsampled, compressed], dim=1)
        else:
            seen = self.correlation(correlate(compressed, upsampled, self.reach))
        return self.predict_flow(self.encode_flow(seen))

    def products(self) -> tuple[Tensor, Tensor]:
        """Return the weights of `products` of the coarse and the fine level, (2 · k², C) each."""
        kernels = self.predict_flow.weight.chunk(2, dim=1)  # (2, D, k, k) each
        return products(kernels[0], self.compress_coarse), products(kernels[1], self.compress_fine)

    def flow_of(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute the flow (N, 2, H, W) from the products of the fine and the coarse level, (N, 2 · k², ·, ·)."""
        return shifted_sum(self.upsample(coarse, fine.shape[-2:]) + fine, self.predict_flow.kernel_size[0])

    def upsample(self, compressed: Tensor, size: Sequence[int]) -> Tensor:
        """Upsample the compressed coarse level to the fine level's size (Table 2a)."""
        if self.nearest:
            return F.interpolate(compressed, size=list(size), mode="nearest-exact")
        return resize(self.enlarge(compressed), size, align_corners=self.align_corners)

    def warp(self, coarse: Tensor, flow: Tensor) -> Tensor:
        """Compute Eqs. 2 and 3; see `warp` and `warp_inside`."""
        return warp(coarse, flow, literal=self.literal) if self.align_corners else warp_inside(coarse, flow)


def products(kernel: Tensor, compress: nn.Conv2d) -> Tensor:
    """Return weights (O · k², C) for the product of each point of a kernel with the input of a 1×1 convolution.

    One product with the product of both weights replaces two products. The result can be upsampled like the compressed
    level, but has fewer channels. These are 18 instead of 128 for a level of 256 channels and a flow of two.
    `shifted_sum` adds the points up.

    Args:
        kernel: kernel `(O, D, k, k)` of a convolution after `compress`.
        compress: 1×1 convolution with weight `(D, C, 1, 1)` and without bias.
    """
    return kernel.permute(0, 2, 3, 1).flatten(0, 2) @ compress.weight.flatten(1)  # (O · k², D) · (D, C)


def shifted_sum(products: Tensor, side: int) -> Tensor:
    """Shift each of `products` (N, O · k², H, W) by its position in a kernel of this side; return (N, O, H, W)."""
    height, width = products.shape[-2:]
    points = torch.unflatten(F.pad(products, [side // 2] * 4), 1, (-1, side**2))  # (N, O, k², ·, ·)
    places = product(range(side), range(side))
    first, *others = (points[:, :, y * side + x, y : y + height, x : x + width] for y, x in places)
    return sum(others, start=first)


def warp_inside(coarse: Tensor, flow: Tensor) -> Tensor:
    """Warp like `warp`, but at pixel centres: `coarse` (N, C, h, w) by a flow (N, 2, H, W) to (N, C, H, W).

    Coordinates -1..1 are from edge to edge, and the flow moves a point by Δ / (W, H). Pixels outside have the values
    at the edge, and points stay inside the level (see `keep_inside`). Coordinates are always float32.
    """
    height, width = flow.shape[-2:]
    ys, xs = ((torch.arange(size, device=flow.device).float() * 2 + 1) / size - 1 for size in (height, width))
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    points = keep_inside([xs + dx / width, ys[:, None] + dy / height], coarse.shape[-2:])
    grid = torch.stack(points, dim=-1)  # (N, H, W, 2)
    warped = F.grid_sample(coarse.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(coarse.dtype)


def warp(coarse: Tensor, flow: Tensor, *, literal: bool = False) -> Tensor:
    """Sample `coarse` (N, C, h, w) bilinearly at fine pixels displaced by `flow` (N, 2, H, W); return (N, C, H, W).

    It is Eqs. 2 and 3 in the coordinates of the released code, for compatible checkpoints. Coordinates -1..1 reach from
    the first pixel centre to the last, the flow moves a point by Δ / (W, H), and points outside read zero. Coordinates
    are always float32.

    Args:
        coarse, flow: the coarse level, and the flow of the fine pixels.
        literal: read the pixel (p + Δ) · h / H of the coarse level instead, which is Eq. 2 if H = 2 h.
    """
    height, width = flow.shape[-2:]
    # Not linspace: exporters would make the size of their example image a constant.
    ys, xs = (torch.arange(size, device=flow.device, dtype=torch.float32) for size in (height, width))
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    if literal:
        h, w = coarse.shape[-2:]
        x = (xs + dx) * (2 * w / (width * max(w - 1, 1))) - 1
        y = (ys[:, None] + dy) * (2 * h / (height * max(h - 1, 1))) - 1
    else:
        x = xs / max(width - 1, 1) * 2 - 1 + dx / width
        y = (ys / max(height - 1, 1) * 2 - 1)[:, None] + dy / height
    grid = torch.stack([x, y], dim=-1)  # (N, H, W, 2)
    warped = F.grid_sample(coarse.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped.to(coarse.dtype)


@merges.register("aligned")
class AlignedConcat(nn.Module):
    """Merge part like `concat`, with levels warped by FAMs (§3.3, "we also replace these up-sampling operations …").

    Args:
        align_corners: see `FlowAlignment`.
        flow_upsampling, flow_kernel, flow_layers, flow_net, flow_reach, flow_coordinates: see `FlowAlignment`.
    """

    def __init__(
        self,
        levels: int,
        channels: int,
        out_channels: int,
        align_corners: bool = True,
        *,
        flow_upsampling: FlowUpsampling = "bilinear",
        flow_kernel: FlowKernel = 3,
        flow_layers: FlowLayers = 1,
        flow_net: FlowNet = "simple",
        flow_reach: Count = 4,
        flow_coordinates: FlowCoordinates = "released",
    ) -> None:
        super().__init__()
        flow: dict[str, Any] = {"flow_upsampling": flow_upsampling, "flow_kernel": flow_kernel, "flow_net": flow_net}
        flow |= {"flow_layers": flow_layers, "flow_reach": flow_reach, "flow_coordinates": flow_coordinates}
        self.fams = nn.ModuleList(FlowAlignment(channels, channels, align_corners, **flow) for _ in range(levels - 1))
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        fams: Any = self.fams
        aligned = [fam.align(finest, level) for fam, level in zip(fams, coarser, strict=True)]
        return self.conv(torch.cat([finest, *aligned], dim=1))


@models.register("sfnet")
@fitted(align_corners=False, inference_scale=1.33)
def sfnet(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: PartChoice = PartChoice("ppm"),
    fuse: PartChoice = PartChoice("fam"),
    fuse_levels: list[int] | None = None,
    merge: PartChoice = PartChoice("concat"),
    frame: Frame = Frame(),
    released_dilation: bool = False,
) -> SegmentationModel:
    """Aligned FPN decoder (§3.3, Fig. 3c) on any backbone.

    The context pools F_5, a FAM upsamples in each step, and all levels are upsampled to 1/4 and concatenated.

    Args:
        width: channels of every level. None uses the released values: 64 on DF and STDC (here also
            on ShuffleNet), 128 for another C5 of up to 512 channels, else 256; on other backbones it fits the channels.
        fuse_levels: coarse levels F_l whose step to F_(l-1) uses the fuse part. The default is all: 3, 4 and 5 (4 and 5
            on DF1 and DF2, which have no F2). Other steps upsample and add.
        released_dilation: dilate the ResNet's last two stages like SFNet's released code; its checkpoints need it.
    """
    backbone = spec.build()
    if released_dilation:
        backbone.dilate()
    paper = 64 if spec.name in LIGHT_BACKBONES else 128 if backbone.channels[-1] <= 512 else 256
    width = spec.width(width, paper, backbone.channels)
    decoder = top_down(backbone.channels, width, width, frame, context, fuse, merge, fuse_levels)
    return SegmentationModel(backbone, decoder, num_classes, frame)


def correlate(fine: Tensor, coarse: Tensor, max_displacement: int) -> Tensor:
    """Compute FlowNet-C's correlation (§4.1, Table 2c; Dosovitskiy et al., *FlowNet*, ICCV 2015) of 1×1 patches.

    It maps two (N, C, H, W) to (N, (2d + 1)², H, W). For each displacement of up to d pixels, row by row from (-d, -d),
    it is the channel mean of `fine` times the displaced `coarse`. `coarse` is zero outside.
    """
    height, width = fine.shape[-2:]
    padded = F.pad(coarse, [max_displacement] * 4)
    reach = range(2 * max_displacement + 1)
    # One product at a time, and autograd keeps only views of `padded`, so no displacement copies the map.
    products = [(fine * padded[..., y : y + height, x : x + width]).mean(1) for y, x in product(reach, reach)]
    return torch.stack(products, dim=1)
