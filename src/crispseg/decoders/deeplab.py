"""DeepLabV3+'s decoder: one step, from the coarsest feature to the finest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import ContextPart, Decoded, Decoder, FusePart, configured, contexts
from crispseg.errors import CrispsegError
from crispseg.nn import Tap, conv_bn_relu, resize


def deeplab_context(name: str, output_stride: int, options: Mapping[str, Any] | None = None) -> ContextPart:
    """The context part of that name; ASPP's own rates are DeepLabV3's, 6, 12, 18 at stride 16 and twice these at 8."""
    if name == "aspp" and output_stride == 8 and not options:
        options = {"rates": (12, 24, 36)}
    return configured(contexts, name, options)


class DeepLabDecoder(nn.Module, Decoder):
    """Chen et al., *Encoder-Decoder with Atrous Separable Convolution*, ECCV 2018, §3.1 and §4.1.

    The finest feature, reduced to 48 channels, and the coarsest with its context, upsampled, are concatenated; two
    3×3 convolutions follow. A fuse part takes the place of the concatenation: what it makes of the finest feature, of
    `width` channels, alone goes on.

    Taps: `coarsest`, the coarsest feature with its context.

    Attributes:
        width: channels of the coarsest feature with its context, and of the result.

    Args:
        channels: channels of the backbone's features, finest first; the first and the last are used.
        width: see above.
        context: context part (see `crispseg.decoders.parts`).
        fuse: fuse part; None concatenates.

    Raises:
        CrispsegError: the width is less than 2.
    """

    low_level_channels = 48

    def __init__(
        self, channels: Sequence[int], width: int, *, context: ContextPart, fuse: FusePart | None = None
    ) -> None:
        super().__init__()
        if width < 2:
            raise CrispsegError(f"width is {width}; it must be at least 2")
        self.width = self.out_channels = width
        self.context = context(channels[-1], width)
        self.coarsest = Tap()
        lateral = self.low_level_channels if fuse is None else width
        self.lateral = conv_bn_relu(channels[0], lateral, 1)
        self.fuse = None if fuse is None else fuse(width, width)
        joined = lateral + width if fuse is None else width
        self.smooth = nn.Sequential(conv_bn_relu(joined, width, 3), conv_bn_relu(width, width, 3))
        self.auxiliary_channels = (joined,)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Features of the backbone, finest first, `(N, channels[i], h_i, w_i)`; images are not looked at."""
        coarse, context = self.context(features[-1])
        coarse = self.coarsest(coarse)
        fine = self.lateral(features[0])
        if self.fuse is None:
            fused = torch.cat([fine, resize(coarse, fine.shape[-2:], align_corners=True)], dim=1)
        else:
            fused = self.fuse(fine, coarse, context)
        return Decoded(self.smooth(fused), (fused,))
