"""Normalisation of pixels inside an exported graph, as `Segmenter` normalises the image of a file."""

from __future__ import annotations

from torch import Tensor, nn

from crispseg.io.arrays import Normalize
from crispseg.models import ModelInfo


class Pixels(nn.Module):
    """Normalisation of pixels `(N, H, W, C)`, uint8 or uint16, to images `(N, in_chans, H, W)`.

    Pixels of a model with a value range are uint16, and are scaled to 8 bits like by `to_8_bits`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        normalize = Normalize(info.mean, info.std, info.in_chans)
        self.register_buffer("mean", normalize.mean)
        self.register_buffer("std", normalize.std)
        self.in_chans = info.in_chans
        self.limits = info.value_range if isinstance(info.value_range, tuple) else None

    def forward(self, pixels: Tensor) -> Tensor:
        values = pixels.float()
        if self.limits is not None:
            low, high = self.limits
            values = ((values - low) / (high - low)).clamp(0, 1).mul(255).round()
        images = values.permute(0, 3, 1, 2).contiguous()  # (N, C, H, W); other strides would limit the sizes of a graph
        if self.in_chans == 1:
            images = images.mean(dim=1, keepdim=True)
        return (images - self.mean) / self.std
