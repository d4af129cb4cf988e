"""UPerNet: Xiao et al., *Unified Perceptual Parsing for Scene Understanding*, ECCV 2018, §3, for one task.

DDSM (Shi et al., §2.2) can be its fuse part.
"""

from __future__ import annotations

from crispseg.decoders import fitted
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice, top_down
from crispseg.models.registry import models


@models.register("upernet")
@fitted(align_corners=False, inference_scale=1.33)
def upernet(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: PartChoice = PartChoice("ppm"),
    fuse: PartChoice = PartChoice("add"),
    fuse_levels: list[int] | None = None,
    merge: PartChoice = PartChoice("concat"),
    frame: Frame = Frame(),
) -> SegmentationModel:
    """UPerNet: pyramid pooling, upsampling and addition; a 3×3 convolution of all concatenated levels is classified.

    Args:
        width: channels of every level. None: 256, or a width that fits the backbone.
        fuse_levels: coarse levels F_l whose step to F_(l-1) uses the fuse part. The default is all: 3, 4 and 5 (4 and 5
            on DF1 and DF2, which have no F2). Other steps upsample and add.
    """
    backbone = spec.build()
    width = spec.width(width, 256, backbone.channels)
    decoder = top_down(backbone.channels, width, width, frame, context, fuse, merge, fuse_levels)
    return SegmentationModel(backbone, decoder, num_classes, frame)
