"""Decoders and their parts."""

from crispseg.decoders.common import Concat, ConvContext, PyramidPooling, UpsampleAdd
from crispseg.decoders.parts import Context, contexts, fuses, merges
from crispseg.decoders.topdown import Decoded, TopDown

__all__ = [
    "Concat",
    "Context",
    "ConvContext",
    "Decoded",
    "PyramidPooling",
    "TopDown",
    "UpsampleAdd",
    "contexts",
    "fuses",
    "merges",
]
