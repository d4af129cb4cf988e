"""SFNet-Lite's decoder: one step, from the coarsest level to the finest, and one level beside it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from crispseg.decoders.parts import ContextPart, Decoded, Decoder, FusePart, MergePart, is_linear
from crispseg.errors import CrispsegError
from crispseg.nn import Tap, conv_bn_relu


class Direct(nn.Module, Decoder):
    """P5 = context(C5), P2 = fuse(lateral(C2), P5), merge(P2, lateral(C4)).

    Taps: `coarsest`, P5.

    Attributes:
        width: channels of every level.

    Args:
        channels: those of C2, C4 and C5.
        width: channels of every level.
        out_channels: channels of the merged feature.
        context, fuse, merge: the parts (see `crispseg.decoders.parts`).

    Raises:
        CrispsegError: the width is less than 2, or the merge part is linear and would leave out C4.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        out_channels: int,
        *,
        context: ContextPart,
        fuse: FusePart,
        merge: MergePart,
    ) -> None:
        super().__init__()
        if width < 2:
            raise CrispsegError(f"width is {width}; it must be at least 2")
        if is_linear(merge):
            raise CrispsegError("merge is one of levels that are summed, and here C4 is not; use merge=concat")
        *beside, coarsest = channels
        self.width = width
        self.out_channels = out_channels
        self.auxiliary_channels = (width,)
        self.context = context(coarsest, width)
        self.coarsest = Tap()
        self.laterals = nn.ModuleList(conv_bn_relu(each, width, 1) for each in beside)
        self.fuse = fuse(width, width)
        self.merge = merge(len(beside), width, out_channels)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """C2, C4 and C5 of the backbone, `(N, channels[i], h_i, w_i)`; images are not looked at."""
        coarse, context = self.context(features[-1])
        finest, *others = [lateral(feature) for lateral, feature in zip(self.laterals, features[:-1], strict=True)]
        fused = self.fuse(finest, self.coarsest(coarse), context)
        return Decoded(self.merge([fused, *others]), (fused,))
