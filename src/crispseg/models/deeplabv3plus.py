"""DeepLabV3+: Chen et al., *Encoder-Decoder with Atrous Separable Convolution*, ECCV 2018, on any backbone.

A host for fuse parts: one of them may take the place of the concatenation of ASPP's output with C2.
"""

from __future__ import annotations

from typing import Any, Literal

from crispseg.decoders import DeepLabDecoder, configured, deeplab_context, fuses
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models


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
    """Atrous spatial pyramid pooling on a dilated backbone, brought to C2.

    The 3×3 convolutions are ordinary ones, not separable.

    Args:
        spec: the backbone to build.
        num_classes: number of logits.
        width: channels of ASPP and of the decoder.
        output_stride: stride of the deepest feature, kept by dilation.
        context: context part on the deepest feature: aspp, ppm, denseaspp, nonlocal or conv.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: concat, as in the paper, or a fuse part: add, dcn, fam, gdfam, ddsm or cfb.
        fuse_options: options of the fuse part by name, such as pixels of ddsm.

    Raises:
        CrispsegError: an option that a part does not have.
    """
    part = None if fuse == "concat" else configured(fuses, fuse, fuse_options)
    backbone = spec.build(strides=(4, output_stride), output_stride=output_stride)
    pooling = deeplab_context(context, output_stride, context_options)
    decoder = DeepLabDecoder(backbone.channels, width, context=pooling, fuse=part)
    return SegmentationModel(backbone, decoder, num_classes)
