"""Decoders and their parts."""

from crispseg.decoders.common import Concat, ConvContext, PyramidPooling, UpsampleAdd
from crispseg.decoders.context import AtrousSpatialPyramidPooling, DenseASPP, NonLocal
from crispseg.decoders.deformable import DeformableFuse
from crispseg.decoders.parts import Context, contexts, fuses, merges
from crispseg.decoders.topdown import Decoded, TopDown

__all__ = [
    "AtrousSpatialPyramidPooling",
    "Concat",
    "Context",
    "ConvContext",
    "Decoded",
    "DeformableFuse",
    "DenseASPP",
    "NonLocal",
    "PyramidPooling",
    "TopDown",
    "UpsampleAdd",
    "contexts",
    "fuses",
    "merges",
]
