"""UPerNet: Xiao et al., *Unified Perceptual Parsing for Scene Understanding*, ECCV 2018, §3, for one task.

An FPN with a pyramid pooling module on C5: the host in which DDSM is placed (Shi et al., §2.2).
"""

from __future__ import annotations

from crispseg.decoders import TopDown, contexts, fuse_steps, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models


@models.register("upernet")
def upernet(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 256,
    context: str = "ppm",
    fuse: str = "add",
    fuse_levels: list[int] | None = None,
    merge: str = "concat",
    auxiliary: bool = False,
) -> SegmentationModel:
    """Pyramid pooling, then upsample and add; all levels concatenated, 3×3, classified.

    Args:
        spec: the backbone to build.
        num_classes: number of logits.
        width: channels of every level.
        context: context part on C5, ppm, aspp, denseaspp, nonlocal, or conv for none.
        fuse: fuse part between levels, add, dcn, fam, ddsm or cfb.
        fuse_levels: coarse levels F_l whose step to F_(l-1) has that fuse part, by default all; the others upsample
            and add.
        merge: merge part for all levels, concat or aligned.
        auxiliary: deep supervision on the decoder's levels.

    Raises:
        CrispsegError: fuse levels that are not there, or none at all.
    """
    backbone = spec.build()
    steps = fuse_steps(fuses[fuse], fuse_levels, len(backbone.channels))
    decoder = TopDown(backbone.channels, width, width, context=contexts[context], fuse=steps, merge=merges[merge])
    return SegmentationModel(backbone, decoder, num_classes, auxiliary=auxiliary)
