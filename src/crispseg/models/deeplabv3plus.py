"""DeepLabV3+: Chen et al., *Encoder-Decoder with Atrous Separable Convolution*, ECCV 2018, on any backbone.

A fuse part can replace the concatenation of ASPP's output with C2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from crispseg.decoders import ContextPart, Decoded, Decoder, FusePart, contexts, fitted, fuses
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice
from crispseg.models.registry import models
from crispseg.nn import Tap, conv_bn_relu, resize


class DeepLabDecoder(nn.Module, Decoder):
    """Decoder of DeepLabV3+ (§3.1 and §4.1).

    It concatenates the finest feature, reduced to 48 channels, with the upsampled coarsest feature and its context, and
    applies two 3×3 convolutions. A fuse part replaces the concatenation. The convolutions then use only its output,
    the fused finest feature of `width` channels.

    Taps: `coarsest`, the coarsest feature with its context.

    Args:
        channels: channels of the backbone's features, finest first; the first and the last are used.
        width: channels of the coarsest feature with its context, and of the result.
        context: context part (see `crispseg.decoders.parts`).
        fuse: fuse part; None concatenates.
        align_corners: align the upsampled coarsest feature at corner pixels, or at pixel centres.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        context: ContextPart,
        fuse: FusePart | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.width = self.out_channels = width
        self.context = context(channels[-1], width)
        self.coarsest = Tap()
        lateral = 48 if fuse is None else width
        self.lateral = conv_bn_relu(channels[0], lateral, 1)
        self.fuse = None if fuse is None else fuse(width, width)
        joined = lateral + width if fuse is None else width
        self.smooth = nn.Sequential(conv_bn_relu(joined, width, 3), conv_bn_relu(width, width, 3))
        self.auxiliary_channels = (joined,)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode features, finest first, `(N, channels[i], h_i, w_i)`; the images are unused."""
        coarse, context = self.context(features[-1])
        coarse = self.coarsest(coarse)
        fine = self.lateral(features[0])
        if self.fuse is None:
            fused = torch.cat([fine, resize(coarse, fine.shape[-2:], align_corners=self.align_corners)], dim=1)
        else:
            fused = self.fuse(fine, coarse, context)
        return Decoded(self.smooth(fused), (fused,))


@models.register("deeplabv3plus")
@fitted(align_corners=False, inference_scale=1.33)
def deeplabv3plus(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    output_stride: Literal[16, 8] = 16,
    context: PartChoice = PartChoice("aspp"),
    fuse: PartChoice = PartChoice("concat"),
    frame: Frame = Frame(),
) -> SegmentationModel:
    """Atrous spatial pyramid pooling on a dilated backbone, fused with C2.

    The 3×3 convolutions are not separable. A fuse part can replace the paper's concatenation, concat.

    Args:
        width: channels of ASPP and of the decoder. None: 256, or a width that fits the backbone.
        output_stride: stride of the deepest feature, kept by dilation.
    """
    part = None if fuse.name == "concat" else fuse.of(fuses, frame)
    backbone = spec.build(strides=(4, output_stride), output_stride=output_stride)
    if context.name == "aspp" and output_stride == 8 and not context.options:
        context = PartChoice("aspp", {"rates": (12, 24, 36)})  # twice those at stride 16
    width = spec.width(width, 256, backbone.channels)
    decoder = DeepLabDecoder(
        backbone.channels, width, context=context.of(contexts, frame), fuse=part, align_corners=frame.align_corners
    )
    return SegmentationModel(backbone, decoder, num_classes, frame)
