"""Decoders and their parts."""

from crispseg.decoders.common import Concat, ConvContext, PyramidPooling, UpsampleAdd, average_bins
from crispseg.decoders.context import AtrousSpatialPyramidPooling, DenseASPP, NonLocal
from crispseg.decoders.deeplab import DeepLabDecoder, deeplab_context
from crispseg.decoders.deformable import DeformableFuse
from crispseg.decoders.parts import Context, contexts, fuses, merges
from crispseg.decoders.topdown import Decoded, TopDown, fuse_steps

__all__ = [
    "AtrousSpatialPyramidPooling",
    "Concat",
    "Context",
    "ConvContext",
    "Decoded",
    "DeepLabDecoder",
    "DeformableFuse",
    "DenseASPP",
    "NonLocal",
    "PyramidPooling",
    "TopDown",
    "UpsampleAdd",
    "average_bins",
    "contexts",
    "deeplab_context",
    "fuse_steps",
    "fuses",
    "merges",
]
