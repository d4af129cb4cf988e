"""DeepLabV3+: Chen et al., *Encoder-Decoder with Atrous Separable Convolution*, ECCV 2018, on any backbone.

A fuse part can replace the concatenation of ASPP's output with C2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crispseg.decoders import ContextPart, Decoded, Decoder, FusePart, configured, contexts, fuses
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models
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
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, context: ContextPart, fuse: FusePart | None = None
    ) -> None:
        super().__init__()
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
            fused = torch.cat([fine, resize(coarse, fine.shape[-2:], align_corners=True)], dim=1)
        else:
            fused = self.fuse(fine, coarse, context)
        return Decoded(self.smooth(fused), (fused,))


@models.register("deeplabv3plus")
def deeplabv3plus(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 256,
    output_stride: Literal[16, 8] = 16,
    context: str = "aspp",
    context_options: dict[str, Any] | None = None,
    fuse: str = "concat",
    fuse_options: dict[str, Any] | None = None,
) -> SegmentationModel:
    """Atrous spatial pyramid pooling on a dilated backbone, fused with C2.

    The 3×3 convolutions are not separable.

    Args:
        width: channels of ASPP and of the decoder.
        output_stride: stride of the deepest feature, kept by dilation.
        context: context part on the deepest feature: aspp, ppm, denseaspp, nonlocal or conv.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: concat, as in the paper, or a fuse part: add, dcn, fam, gdfam, ddsm or cfb.
        fuse_options: options of the fuse part by name, such as pixels of ddsm.
    """
    part = None if fuse == "concat" else configured(fuses, fuse, fuse_options)
    backbone = spec.build(strides=(4, output_stride), output_stride=output_stride)
    if context == "aspp" and output_stride == 8 and not context_options:
        context_options = {"rates": (12, 24, 36)}  # twice those at stride 16
    pooling = configured(contexts, context, context_options)
    decoder = DeepLabDecoder(backbone.channels, width, context=pooling, fuse=part)
    return SegmentationModel(backbone, decoder, num_classes)
