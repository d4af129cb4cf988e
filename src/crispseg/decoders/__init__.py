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
    fitted,
    fuses,
    is_linear,
    merges,
)
from crispseg.decoders.topdown import TopDown, fuse_steps
from crispseg.decoders.upsamplers import CARAFE, SAPA, DySample, FADELite, SharpFlow

__all__ = [
    "CARAFE",
    "SAPA",
    "AsymmetricFusionNonLocal",
    "Concat",
    "Context",
    "ContextPart",
    "ConvContext",
    "Decoded",
    "Decoder",
    "DySample",
    "FADELite",
    "FusePart",
    "Levels",
    "MergePart",
    "SharpFlow",
    "Sum",
    "TopDown",
    "UpsampleAdd",
    "configured",
    "contexts",
    "fitted",
    "fuse_steps",
    "fuses",
    "is_linear",
    "merges",
]
