"""FPN: Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017, as a baseline for segmentation.

Its widths match the counts in AGLN's tables (Li et al., Tables IV and VIII).
"""

from __future__ import annotations

from crispseg.decoders import fitted
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame, PartChoice, fitted_width, top_down
from crispseg.models.registry import models
from crispseg.models.sfnet import LIGHT_BACKBONES


@models.register("fpn")
@fitted(align_corners=False, inference_scale=1.33)
def fpn(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: PartChoice = PartChoice("conv"),
    fuse: PartChoice = PartChoice("add"),
    merge: PartChoice = PartChoice("concat"),
    frame: Frame = Frame(),
) -> SegmentationModel:
    """FPN that upsamples, adds and concatenates all levels; a 3×3 convolution doubles the width before the classifier.

    Args:
        width: channels of every level. None: 64 on DF, STDC and ShuffleNet, or if C2 has fewer than 64 channels,
            because merging is expensive. Otherwise 128 if C5 has up to 512, or 256.
    """
    backbone = spec.build()
    paper = 64 if spec.name in LIGHT_BACKBONES else fitted_width(backbone.channels)
    width = spec.width(width, paper, backbone.channels)
    decoder = top_down(backbone.channels, width, 2 * width, frame, context, fuse, merge)
    return SegmentationModel(backbone, decoder, num_classes, frame)
