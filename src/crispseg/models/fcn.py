"""FCN: Long et al., *Fully Convolutional Networks for Semantic Segmentation*, CVPR 2015, without skips.

The baselines of SFNet's Table 1(a): FCN-32s, and the dilated FCN (Yu and Koltun, ICLR 2016). With a context part and an
output stride of 8 it is PSPNet (`ppm`), CCNet (`crisscross`) or, with `fusion`, ANL (`apnb`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from crispseg.decoders import AsymmetricFusionNonLocal, ContextPart, Decoded, Decoder, configured, contexts
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models
from crispseg.nn import Tap


class ContextOnly(nn.Module, Decoder):
    """Context part on the deepest feature, to which `fusion` first brings the stage before it. Taps: `coarsest`."""

    auxiliary_channels = ()

    def __init__(self, channels: Sequence[int], width: int, *, context: ContextPart, fusion: bool = False) -> None:
        super().__init__()
        self.width = self.out_channels = width
        self.fusion = AsymmetricFusionNonLocal(*channels) if fusion else None
        self.context = context(channels[-1], width)
        self.coarsest = Tap()

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Features of the backbone, `(N, channels[i], h_i, w_i)`; images are not looked at."""
        deepest = features[-1] if self.fusion is None else self.fusion(*features)
        level, _ = self.context(deepest)
        return Decoded(self.coarsest(level))


@models.register("fcn")
def fcn(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    output_stride: Literal[32, 16, 8] = 32,
    context: str = "conv",
    context_options: dict[str, Any] | None = None,
    fusion: bool = False,
) -> SegmentationModel:
    """A context part on the deepest feature, classified.

    Args:
        spec, num_classes: the backbone to build, and the number of logits.
        width: channels of what is classified; by default a quarter of the deepest feature's.
        output_stride: stride of the deepest feature, kept at 16 or 8 by dilating the stages behind it.
        context: context part: conv, a 3×3 convolution, ppm, aspp, denseaspp, nonlocal, crisscross or apnb.
        context_options: options of the context part by name, such as rates of aspp.
        fusion: give the context part the last two stages, fused as ANL fuses them before apnb.
    """
    strides = (min(16, output_stride), output_stride) if fusion else (output_stride,)
    backbone = spec.build(strides=strides, output_stride=output_stride)
    if width is None:
        width = max(backbone.channels[-1] // 4, 2)
    decoder = ContextOnly(
        backbone.channels, width, context=configured(contexts, context, context_options), fusion=fusion
    )
    return SegmentationModel(backbone, decoder, num_classes)
