"""The top-down decoder: from the coarsest level to the finest, with exchangeable parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from crispseg.decoders.parts import (
    Context,
    ContextPart,
    Decoded,
    Decoder,
    FusePart,
    GatherPart,
    MergePart,
    fuses,
    is_linear,
)
from crispseg.errors import CrispsegError
from crispseg.nn import Tap, conv_bn_relu


def fuse_steps(part: FusePart, levels: Sequence[int] | None, features: int) -> list[FusePart]:
    """The fuse part of each step, finest first: `part` from the coarse levels named, addition from the others.

    Args:
        part: the fuse part.
        levels: l of the F_l that `part` brings to F_(l-1); None is all there are.
        features: number of the backbone's features, of which the last is F_5.

    Raises:
        CrispsegError: levels that are not there, or none at all.
    """
    there = list(range(7 - features, 6))
    chosen = there if levels is None else levels
    if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*there}:
        possible = ", ".join(map(str, there))
        raise CrispsegError(f"fuse_levels is {levels}; give one or more of {possible}, each once")
    if part is fuses["add"] and len(chosen) < len(there):
        raise CrispsegError(
            f"fuse is add, so fuse_levels={levels} changes nothing; leave it out, or use another part, such as fuse=fam"
        )
    return [part if level in chosen else fuses["add"] for level in there]


class TopDown(nn.Module, Decoder):
    """P5 = context(C5), P4 = fuse(lateral(C4), P5), ..., merge(P2..P5).

    Laterals are 1×1 convolutions with batch norm and ReLU, and a 3×3 convolution follows each fused level. With a merge
    part that is linear, such as the sum, laterals are 1×1 convolutions alone, and nothing follows; the convolutions of
    a flow are then composed to one, which they are not in the papers' networks: these cost what their papers count.

    Taps: `coarsest`, P5.

    Attributes:
        width: channels of every level.
        fuse_levels: l of the F_l that each step brings to F_(l-1), the finest step first and F5 the coarsest level.

    Args:
        channels: channels of the backbone's features, finest first.
        width: channels of every level.
        out_channels: channels of the merged feature.
        context, fuse, merge: the parts (see `crispseg.decoders.parts`); one fuse part for all steps, or one a step,
            the finest first.
        gather, gathered_levels: a part that adds the descriptors of each of so many levels, the coarsest first, to the
            context (see `crispseg.decoders.parts`).
        centred: addition, flow and concatenation bring levels to each other by the centres of their pixels, which is
            the same at all sizes, as it is not where the corner pixels lie on each other.

    Raises:
        CrispsegError: the width is less than 2.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        out_channels: int,
        *,
        context: ContextPart,
        fuse: FusePart | Sequence[FusePart],
        merge: MergePart,
        gather: GatherPart | None = None,
        gathered_levels: int = 0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if width < 2:
            raise CrispsegError(f"width is {width}; it must be at least 2")
        *fine_channels, coarsest_channels = channels
        self.width = width
        self.out_channels = out_channels
        self.fuse_levels = list(range(6 - len(fine_channels), 6))
        self.auxiliary_channels = (width,) * len(fine_channels)
        self.context = context(coarsest_channels, width)
        self.coarsest = Tap()
        self.gathers = nn.ModuleList(gather(width) for _ in range(gathered_levels)) if gather else nn.ModuleList()
        self.linear = linear = is_linear(merge)
        self.laterals = nn.ModuleList(
            nn.Conv2d(fine, width, 1, bias=False) if linear else conv_bn_relu(fine, width, 1) for fine in fine_channels
        )
        steps = fuse if isinstance(fuse, Sequence) else [fuse] * len(fine_channels)
        self.fuses = nn.ModuleList(step(width, width) for step, _ in zip(steps, fine_channels, strict=True))
        self.smooths = nn.ModuleList(nn.Identity() if linear else conv_bn_relu(width, width, 3) for _ in fine_channels)
        self.merge = merge(len(channels), width, out_channels)
        part: Any
        for part in (*self.fuses.modules(), *self.merge.modules()):
            if centred and hasattr(part, "align_corners"):
                part.align_corners = False
            if linear and hasattr(part, "composed"):
                part.composed = True

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Features of the backbone, finest first, `(N, channels[i], h_i, w_i)`; images are not looked at."""
        *fine_features, coarsest = features
        level, context = self.context(coarsest)
        level = self.coarsest(level)
        levels = [level]
        context = self._gathered(level, 0, context)
        for feature, lateral, fuse in reversed(list(zip(fine_features, self.laterals, self.fuses, strict=True))):
            level = fuse(lateral(feature), level, context)
            context = self._gathered(level, len(levels), context)
            levels.append(level)
        levels.reverse()
        *fused, coarsest_level = levels
        smoothed = [smooth(level) for smooth, level in zip(self.smooths, fused, strict=True)]
        return Decoded(self.merge([*smoothed, coarsest_level]), tuple(fused))

    def _gathered(self, level: Tensor, index: int, context: Context) -> Context:
        """The context with the descriptors of a level, where they are gathered; the coarsest has index 0."""
        if index >= len(self.gathers):
            return context
        return context._replace(descriptors=(*context.descriptors, self.gathers[index](level)))
