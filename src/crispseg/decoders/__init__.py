"""Decoders and their parts by kind: context and attention, fuse, merge. Those of the four papers are in models."""

from crispseg.decoders.attention import AsymmetricPyramidNonLocal, RecurrentCrissCross
from crispseg.decoders.context import (
    AtrousSpatialPyramidPooling,
    ConvContext,
    DenseASPP,
    LinearContext,
    NonLocal,
    PyramidPooling,
)
from crispseg.decoders.deeplab import DeepLabDecoder, deeplab_context
from crispseg.decoders.direct import Direct
from crispseg.decoders.fuse import DeformableFuse, UpsampleAdd
from crispseg.decoders.merge import Concat, Sum
from crispseg.decoders.parts import Context, Decoded, Decoder, Levels, configured, contexts, fuses, merges
from crispseg.decoders.topdown import TopDown, fuse_steps

__all__ = [
    "AsymmetricPyramidNonLocal",
    "AtrousSpatialPyramidPooling",
    "Concat",
    "Context",
    "ConvContext",
    "Decoded",
    "Decoder",
    "DeepLabDecoder",
    "DeformableFuse",
    "DenseASPP",
    "Direct",
    "Levels",
    "LinearContext",
    "NonLocal",
    "PyramidPooling",
    "RecurrentCrissCross",
    "Sum",
    "TopDown",
    "UpsampleAdd",
    "configured",
    "contexts",
    "deeplab_context",
    "fuse_steps",
    "fuses",
    "merges",
]
