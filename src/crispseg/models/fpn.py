"""FPN: Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017, as a baseline for segmentation.

Its widths match the counts in AGLN's tables (Li et al., Tables IV and VIII).
"""

from __future__ import annotations

from typing import Any

from crispseg.decoders import TopDown, configured, contexts, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models
from crispseg.models.sfnet import LIGHT_BACKBONES


@models.register("fpn")
def fpn(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: str = "conv",
    context_options: dict[str, Any] | None = None,
    fuse: str = "add",
    fuse_options: dict[str, Any] | None = None,
    merge: str = "concat",
    merge_options: dict[str, Any] | None = None,
) -> SegmentationModel:
    """FPN that upsamples, adds and concatenates all levels; a 3×3 convolution doubles the width before the classifier.

    Args:
        width: channels of every level. None: 64 on DF, STDC and ShuffleNet, or if C2 has fewer than 64 channels,
            because merging is expensive. Otherwise 128 if C5 has up to 512, or 256.
        context: context part on C5: conv, linear, ppm, aspp, denseaspp, nonlocal, crisscross or apnb.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: fuse part between levels: add, dcn, fam, gdfam, ddsm or cfb.
        fuse_options: options of the fuse part by name, such as pixels of ddsm.
        merge: merge part for all levels: concat, aligned, or sum, which adds the projected levels.
        merge_options: options of the merge part by name, such as flow_kernel of aligned.
    """
    part = configured(fuses, fuse, fuse_options)
    backbone = spec.build()
    if width is None:
        light = spec.name in LIGHT_BACKBONES or backbone.channels[0] < 64
        width = 64 if light else 128 if backbone.channels[-1] <= 512 else 256
    decoder = TopDown(
        backbone.channels,
        width,
        2 * width,
        context=configured(contexts, context, context_options),
        fuses=[part] * (len(backbone.channels) - 1),
        merge=configured(merges, merge, merge_options),
    )
    return SegmentationModel(backbone, decoder, num_classes)
