"""crisp: a combination of the four papers' parts, and the default model of `crispseg train`.

Every level of the backbone is projected at its own resolution, and all are summed from coarse to fine along SFNet's
flow. The sum is normalised, rectified and classified. This is a cheap variant of SegFormer's decoder of four levels,
with a flow instead of upsampling. The saved time allows upscaled images at inference. benchmarks/results/
has the measurements for each part, and for rejected parts.
"""

from __future__ import annotations

from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice, top_down
from crispseg.models.registry import models, variant


@models.register("crisp")
def crisp(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 128,
    context: PartChoice = PartChoice("linear"),
    fuse: PartChoice = PartChoice("fam"),
    fuse_levels: list[int] | None = None,
    merge: PartChoice = PartChoice("sum"),
    frame: Frame = Frame(align_corners=False, inference_scale=1.33),
) -> SegmentationModel:
    """Sum of levels along a flow, with images upscaled by a third at inference; the default of `crispseg train`.

    Args:
        width: channels of every level.
        fuse_levels: coarse levels F_l whose step to F_(l-1) uses the fuse part. The default is all: 3, 4 and 5 (4 and 5
            on DF1 and DF2, which have no F2). Other steps upsample and add.
    """
    backbone = spec.build()
    decoder = top_down(backbone.channels, width, width, frame, context, fuse, merge, fuse_levels)
    return SegmentationModel(backbone, decoder, num_classes, frame)


crisp_s = variant("crisp_s", crisp, "`crisp` without upscaling of images.", frame=Frame(align_corners=False))
crisp_l = variant(
    "crisp_l",
    crisp,
    "Larger `crisp`: 256 channels, images upscaled by half at inference.",
    width=256,
    frame=Frame(align_corners=False, inference_scale=1.5),
)
