"""Decoders and their parts by kind: context, fuse and merge. The four papers' parts are in `models`."""

from crispseg.decoders.context import AsymmetricFusionNonLocal, ConvContext
from crispseg.decoders.fuse import Concat, Sum, UpsampleAdd
from crispseg.decoders.parts import (
    Context,
    ContextPart,
    Decoded,
    Decoder,
    FusePart,
    Levels,
    MergePart,
    configured,
    contexts,
    fuses,
    is_linear,
    merges,
)
from crispseg.decoders.topdown import TopDown, fuse_steps

__all__ = [
    "AsymmetricFusionNonLocal",
    "Concat",
    "Context",
    "ContextPart",
    "ConvContext",
    "Decoded",
    "Decoder",
    "FusePart",
    "Levels",
    "MergePart",
    "Sum",
    "TopDown",
    "UpsampleAdd",
    "configured",
    "contexts",
    "fuse_steps",
    "fuses",
    "is_linear",
    "merges",
]
