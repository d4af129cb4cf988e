"""Models with a top-down decoder: one builder; FPN and UPerNet are presets of it here, SFNet, DDSM and crisp elsewhere.

FPN: Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017, as a segmentation baseline, of the widths
that AGLN's tables count (Li et al., Tables IV and VIII). UPerNet: Xiao et al., *Unified Perceptual Parsing for Scene
Understanding*, ECCV 2018, §3, for one task: the host in which DDSM is placed (Shi et al., §2.2).
"""

from __future__ import annotations

from typing import Any

from crispseg.decoders import TopDown, configured, contexts, fuse_steps, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, preset

# Whose levels have 64 channels: DF's and STDC's in SFNet's released code, ShuffleNet's by SFNet's Table 1(d).
LIGHT_BACKBONES = ("df1", "df2", "stdc1", "stdc2", "shufflenetv2_x1_0")


def top_down(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = 256,
    context: str = "conv",
    context_options: dict[str, Any] | None = None,
    fuse: str = "add",
    fuse_levels: list[int] | None = None,
    fuse_options: dict[str, Any] | None = None,
    merge: str = "concat",
    merge_options: dict[str, Any] | None = None,
    expansion: int = 1,
    released_dilation: bool = False,
    centred: bool = False,
    enlarge: float = 1.0,
) -> SegmentationModel:
    """A pyramid from coarse to fine, whose parts are named.

    Args:
        spec: the backbone to build.
        num_classes: number of logits.
        width: channels of every level. None: as SFNet's code was released, 64 on DF and STDC (here also on ShuffleNet),
            128 for another C5 of up to 512 channels, else 256; with expansion, which makes merging dear, 64 where C2
            has fewer than 64 channels too.
        context: context part on C5: conv, linear, ppm, aspp, denseaspp, nonlocal, crisscross or apnb.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: fuse part between levels: add, dcn, fam, gdfam, ddsm or cfb.
        fuse_levels: coarse levels F_l whose step to F_(l-1) has that fuse part, by default all, 3, 4 and 5 (4 and 5 on
            DF1 and DF2, which have no F2); the other steps upsample and add.
        fuse_options: options of the fuse part by name, such as pixels of ddsm.
        merge: merge part for all levels: concat, aligned, or sum of levels that are as they were projected.
        merge_options: options of the merge part by name, such as flow_kernel of aligned.
        expansion: the merged feature has this many times the width.
        released_dilation: dilate the ResNet's last two stages as SFNet's released code does; its checkpoints need it.
        centred: levels, and the logits on the image, lie on each other by the centres of their pixels, not by corner
            pixels; images are padded to multiples of the coarsest stride.
        enlarge: in eval mode the backbone sees images about so many times as large, 1 to 4, each side a multiple of the
            coarsest stride; time and memory grow with the square.

    Raises:
        CrispsegError: fuse levels that are not there, or none at all; an option that a part does not have.
    """
    part = configured(fuses, fuse, fuse_options)
    backbone = spec.build()
    if released_dilation:
        backbone.dilate()
    if width is None:
        light = spec.name in LIGHT_BACKBONES or (expansion > 1 and backbone.channels[0] < 64)
        width = 64 if light else 128 if backbone.channels[-1] <= 512 else 256
    steps = fuse_steps(part, fuse_levels, len(backbone.channels))
    decoder = TopDown(
        backbone.channels,
        width,
        expansion * width,
        context=configured(contexts, context, context_options),
        fuse=steps,
        merge=configured(merges, merge, merge_options),
        centred=centred,
    )
    return SegmentationModel(
        backbone,
        decoder,
        num_classes,
        enlarge=enlarge,
        centred=centred,
        pad=centred or None,
    )


PLAIN = {"expansion": 1, "released_dilation": False, "centred": False, "enlarge": 1.0}
"""What presets fix that merge to the levels' width on undilated backbones, and classify that."""

fpn = preset(
    "fpn",
    top_down,
    "Upsample and add; all levels concatenated, 3×3 to twice the width, classified.",
    fixed={**PLAIN, "expansion": 2, "fuse_levels": None},
    width=None,
)
upernet = preset(
    "upernet",
    top_down,
    "Pyramid pooling, then upsample and add; all levels concatenated, 3×3, classified.",
    fixed=PLAIN,
    context="ppm",
)
