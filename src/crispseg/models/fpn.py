"""FPN: Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017, as a segmentation baseline.

Of the widths that AGLN's tables count (Li et al., Tables IV and VIII).
"""

from __future__ import annotations

from crispseg.decoders import TopDown, contexts, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models


@models.register("fpn")
def fpn(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 256,
    context: str = "conv",
    fuse: str = "add",
    merge: str = "concat",
    auxiliary: bool = False,
) -> SegmentationModel:
    """Upsample and add; all levels concatenated, 3×3 to twice the width, classified.

    Args:
        spec: the backbone to build.
        num_classes: number of logits.
        width: channels of every level.
        context: context part on C5, conv, ppm, aspp, denseaspp or nonlocal.
        fuse: fuse part between levels, add, dcn, fam, ddsm or cfb.
        merge: merge part for all levels, concat or aligned.
        auxiliary: deep supervision on the decoder's levels.
    """
    backbone = spec.build()
    decoder = TopDown(
        backbone.channels,
        width,
        2 * width,
        context=contexts[context],
        fuse=fuses[fuse],
        merge=merges[merge],
    )
    return SegmentationModel(backbone, decoder, num_classes, auxiliary=auxiliary)
