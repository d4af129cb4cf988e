"""FCN: Long et al., *Fully Convolutional Networks for Semantic Segmentation*, CVPR 2015, without skips.

It includes the baselines of SFNet's Table 1(a): FCN-32s, and the dilated FCN (Yu and Koltun, ICLR 2016). With a context
part and an output stride of 8, it is PSPNet (`ppm`), CCNet (`crisscross`) or, with `fusion`, ANL (`apnb`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from crispseg.decoders import AsymmetricFusionNonLocal, ContextPart, Decoded, Decoder, contexts, fitted
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice
from crispseg.models.registry import models
from crispseg.nn import Tap


class ContextOnly(nn.Module, Decoder):
    """Context part on the deepest feature; `fusion` first adds the stage before it. Taps: `coarsest`."""

    def __init__(
        self, channels: Sequence[int], width: int, *, context: ContextPart, stride: int, fusion: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        self.width = self.out_channels = width
        self.fusion = AsymmetricFusionNonLocal(*channels) if fusion else None
        self.context = context(channels[-1], width)
        self.coarsest = Tap()

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode the backbone's features, `(N, channels[i], h_i, w_i)`; the images are unused."""
        deepest = features[-1] if self.fusion is None else self.fusion(*features)
        level, _ = self.context(deepest)
        return Decoded(self.coarsest(level))


@models.register("fcn")
@fitted(align_corners=False, inference_scale=1.33)
def fcn(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    output_stride: Literal[32, 16, 8] = 32,
    context: PartChoice = PartChoice("conv"),
    frame: Frame = Frame(),
    fusion: bool = False,
) -> SegmentationModel:
    """Context part on the deepest feature, followed by the classifier.

    Args:
        width: channels of the classified feature; the default is a quarter of the deepest feature's channels.
        output_stride: stride of the deepest feature; dilation of later stages keeps it at 16 or 8.
        fusion: give the context part the last two stages, fused as in ANL before apnb.
    """
    strides = (min(16, output_stride), output_stride) if fusion else (output_stride,)
    backbone = spec.build(strides=strides, output_stride=output_stride)
    if width is None:
        width = max(backbone.channels[-1] // 4, 2)
    part = context.of(contexts, frame)
    decoder = ContextOnly(backbone.channels, width, context=part, stride=backbone.strides[-1], fusion=fusion)
    return SegmentationModel(backbone, decoder, num_classes, frame)
