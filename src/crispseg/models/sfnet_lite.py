"""SFNet-Lite: Li et al., *SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow*, IJCV 2023 (arXiv
2207.04415).

It follows the released code; see docs/papers/sfnet.md, "SFNet-Lite".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crispseg.decoders import (
    Context,
    ContextPart,
    Decoded,
    Decoder,
    FusePart,
    MergePart,
    contexts,
    fitted,
    fuses,
    is_linear,
    merges,
)
from crispseg.errors import CrispsegError
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice
from crispseg.models.registry import models
from crispseg.models.sfnet import warp, warp_inside
from crispseg.nn import Tap, conv_bn_relu, projection, resize

Gate = Literal["pooled", "features"]


@fuses.register("gdfam")
class GatedDualFlowAlignment(nn.Module):
    """Gated Dual Flow Alignment Module: both levels are warped, and a gate mixes them at each pixel.

    As in the FAM, 1×1 convolutions compress both levels to half the width, and a 3×3 convolution on both predicts the
    flow. It has four channels, because the fine level has its own flow. A pixel becomes `gate · warp(coarse, flow) +
    (1 - gate) · warp(fine, fine_flow)`, without a further addition.

    Taps: `fine` (N, C, H, W) and `coarse` (N, C, h, w), the two levels; `flow` and `fine_flow` (N, 2, H, W), their x
    and y displacement in half pixels of the fine level; `warped` and `fine_warped` (N, C, H, W); `gate` (N, 1, H, W),
    0 to 1, the share of the coarse level.

    Args:
        gate: input of the gate's 3×3 convolution: mean and maximum over channels of both levels (pooled; the coarse
            level is compressed and upsampled). features uses the compressed levels, like the flow.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, align_corners: bool = True, *, gate: Gate = "pooled"
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.warp = warp if align_corners else warp_inside
        common = fine_channels // 2
        self.project = projection(coarse_channels, fine_channels)
        self.compress_fine = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.compress_coarse = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.predict_flow = nn.Conv2d(2 * common, 4, 3, padding=1, bias=False)
        self.pooled = gate == "pooled"
        self.predict_gate = nn.Conv2d(4 if self.pooled else 2 * common, 1, 3, padding=1, bias=False)
        self.fine, self.coarse, self.gate = Tap(), Tap(), Tap()
        self.flow, self.warped, self.fine_flow, self.fine_warped = Tap(), Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        fine, coarse = self.fine(fine), self.coarse(self.project(coarse))
        upsampled = resize(self.compress_coarse(coarse), fine.shape[-2:], align_corners=self.align_corners)
        seen = torch.cat([upsampled, self.compress_fine(fine)], dim=1)
        flow, fine_flow = self.predict_flow(seen).chunk(2, dim=1)  # (N, 2, H, W) each
        warped = self.warped(self.warp(coarse, self.flow(flow)))
        fine_warped = self.fine_warped(self.warp(fine, self.fine_flow(fine_flow)))
        if self.pooled:
            levels = (upsampled, fine)  # like the released code: the fine level before its compression
            means = [level.mean(1, keepdim=True) for level in levels]
            maxima = [level.amax(1, keepdim=True) for level in levels]
            seen = torch.cat([*means, *maxima], dim=1)
        gate = self.gate(self.predict_gate(seen).sigmoid())
        return gate * warped + (1 - gate) * fine_warped


class DirectDecoder(nn.Module, Decoder):
    """Decoder with P5 = context(C5), P2 = fuse(lateral(C2), P5) and output merge(P2, lateral(C4)).

    Taps: `coarsest`, P5.

    Args:
        channels: channels of C2, C4 and C5.
        width: channels of every level, and of the merged feature.
        context, fuse, merge: the parts (see `crispseg.decoders.parts`).

    Raises:
        CrispsegError: the merge part is linear and would omit C4.
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, context: ContextPart, fuse: FusePart, merge: MergePart
    ) -> None:
        super().__init__()
        if is_linear(merge):
            raise CrispsegError("merge adds levels that are already summed, but C4 is not; use merge=concat")
        *others, coarsest = channels
        self.width = self.out_channels = width
        self.auxiliary_channels = (width,)
        self.context = context(coarsest, width)
        self.coarsest = Tap()
        self.laterals = nn.ModuleList(conv_bn_relu(in_channels, width, 1) for in_channels in others)
        self.fuse = fuse(width, width)
        self.merge = merge(len(others), width, width)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode C2, C4 and C5 of the backbone, `(N, channels[i], h_i, w_i)`; the images are unused."""
        c2, c4, c5 = features
        coarse, context = self.context(c5)
        finest, middle = (lateral(feature) for lateral, feature in zip(self.laterals, (c2, c4), strict=True))
        fused = self.fuse(finest, self.coarsest(coarse), context)
        return Decoded(self.merge([fused, middle]), (fused,))


@models.register("sfnet_lite")
@fitted(align_corners=False, inference_scale=1.33)
def sfnet_lite(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: PartChoice = PartChoice("ppm"),
    fuse: PartChoice = PartChoice("gdfam"),
    merge: PartChoice = PartChoice("concat"),
    frame: Frame = Frame(),
    released_dilation: bool = False,
) -> SegmentationModel:
    """Single gated alignment of the coarsest level with the finest, on any backbone.

    Args:
        width: channels of every level. None: 128 if C5 has up to 1024 channels, like the released code, else 256; on
            backbones outside the paper's tables it fits the channels.
        released_dilation: dilate the ResNet's last two stages like SFNet's released code; its checkpoints need it.
    """
    backbone = spec.build(strides=(4, 16, 32))
    if released_dilation:
        backbone.dilate()
    width = spec.width(width, 128 if backbone.channels[-1] <= 1024 else 256, backbone.channels)
    parts: dict[str, Any] = {
        "context": context.of(contexts, frame),
        "fuse": fuse.of(fuses, frame),
        "merge": merge.of(merges, frame),
    }
    return SegmentationModel(backbone, DirectDecoder(backbone.channels, width, **parts), num_classes, frame)
