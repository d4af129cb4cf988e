"""UPerNet: Xiao et al., *Unified Perceptual Parsing for Scene Understanding*, ECCV 2018, §3, for one task.

DDSM (Shi et al., §2.2) can be its fuse part.
"""

from __future__ import annotations

from typing import Any

from crispseg.decoders import TopDown, configured, contexts, fuse_steps, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models


@models.register("upernet")
def upernet(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 256,
    context: str = "ppm",
    context_options: dict[str, Any] | None = None,
    fuse: str = "add",
    fuse_levels: list[int] | None = None,
    fuse_options: dict[str, Any] | None = None,
    merge: str = "concat",
    merge_options: dict[str, Any] | None = None,
) -> SegmentationModel:
    """UPerNet: pyramid pooling, upsampling and addition; a 3×3 convolution of all concatenated levels is classified.

    Args:
        width: channels of every level.
        context: context part on C5, as in `fpn`.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: fuse part between levels, as in `fpn`.
        fuse_levels: coarse levels F_l whose step to F_(l-1) uses the fuse part. The default is all: 3, 4 and 5 (4 and 5
            on DF1 and DF2, which have no F2). Other steps upsample and add.
        fuse_options: options of the fuse part by name, such as pixels of ddsm.
        merge: merge part for all levels, as in `fpn`.
        merge_options: options of the merge part by name, such as flow_kernel of aligned.
    """
    part = configured(fuses, fuse, fuse_options)
    backbone = spec.build()
    decoder = TopDown(
        backbone.channels,
        width,
        width,
        context=configured(contexts, context, context_options),
        fuses=fuse_steps(part, fuse_levels, len(backbone.channels)),
        merge=configured(merges, merge, merge_options),
    )
    return SegmentationModel(backbone, decoder, num_classes)
