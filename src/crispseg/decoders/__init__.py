"""Decoders and their parts by kind: context, fuse and merge. The four papers' parts are in `models`."""

import crispseg.decoders.upsamplers  # noqa: F401 (registers its parts)
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
    "fitted",
    "fuse_steps",
    "fuses",
    "is_linear",
    "merges",
]
