"""Top-down decoder from the coarsest level to the finest, with exchangeable parts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from crispseg.decoders.fuse import UpsampleAdd
from crispseg.decoders.parts import Context, ContextPart, Decoded, Decoder, FusePart, MergePart, is_linear
from crispseg.errors import CrispsegError
from crispseg.nn import Tap, conv_bn_relu


def step_levels(features: int) -> list[int]:
    """Return l for each step from F_l to F_(l-1), finest step first; F_5 is the last of the features."""
    return list(range(7 - features, 6))


def fuse_steps(
    part: FusePart, levels: Sequence[int] | None, features: int, other: FusePart = UpsampleAdd
) -> list[FusePart]:
    """Return the fuse part of each step, finest first.

    Args:
        part: the fuse part.
        levels: l of the steps from F_l to F_(l-1) that use `part`; None means all.
        features: number of the backbone's features.
        other: the part of all other steps.

    Raises:
        CrispsegError: a level does not exist.
    """
    steps = step_levels(features)
    chosen = steps if levels is None else levels
    if not {*chosen} <= {*steps}:
        raise CrispsegError(f"fuse_levels is {levels}; give some of {', '.join(map(str, steps))}")
    return [part if level in chosen else other for level in steps]


class TopDown(nn.Module, Decoder):
    """Decoder with P5 = context(C5), P4 = fuse(lateral(C4), P5), ... and output merge(P2..P5).

    Laterals are 1×1 convolutions with batch norm and ReLU, and a 3×3 convolution follows each fused level. With a
    linear merge part, such as the sum, laterals are only 1×1 convolutions, and no convolution follows.

    Taps: `coarsest`, P5.

    Args:
        channels: channels of the backbone's features, finest first.
        width: channels of every level.
        out_channels: channels of the merged feature.
        context, fuses, merge: the parts (see `crispseg.decoders.parts`); one fuse part per step, finest first.
        lateral_kernel: side of the lateral convolutions.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        out_channels: int,
        *,
        context: ContextPart,
        fuses: Sequence[FusePart],
        merge: MergePart,
        lateral_kernel: int = 1,
    ) -> None:
        super().__init__()
        *fine, coarsest = channels
        self.width, self.out_channels = width, out_channels
        self.auxiliary_channels = (width,) * len(fine)
        self.fuse_levels = step_levels(len(channels))
        self.linear = linear = is_linear(merge)
        self.context = context(coarsest, width)
        self.coarsest = Tap()
        self.laterals = nn.ModuleList(
            nn.Conv2d(in_channels, width, 1, bias=False) if linear else conv_bn_relu(in_channels, width, lateral_kernel)
            for in_channels in fine
        )
        self.fuses = nn.ModuleList(fuse(width, width) for fuse in fuses)
        self.smooths = nn.ModuleList(nn.Identity() if linear else conv_bn_relu(width, width, 3) for _ in fine)
        self.merge = merge(len(channels), width, out_channels)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode features, finest first, `(N, channels[i], h_i, w_i)`; the images are unused."""
        *fine, coarsest = features
        level, context = self.context(coarsest)
        level = coarsest_level = self.coarsest(level)
        fused: list[Tensor] = []  # finest first
        for feature, lateral, fuse in reversed(list(zip(fine, self.laterals, self.fuses, strict=True))):
            context = self.gathered(level, context)
            level = fuse(lateral(feature), level, context)
            fused.insert(0, level)
        smoothed = [smooth(level) for smooth, level in zip(self.smooths, fused, strict=True)]
        return Decoded(self.merge([*smoothed, coarsest_level]), tuple(fused))

    def gathered(self, level: Tensor, context: Context) -> Context:
        """Return the context of the step from `level` `(N, width, h, w)` to the next finer one."""
        return context
