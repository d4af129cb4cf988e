"""Normalisation of pixels inside an exported graph, as `Segmenter` normalises the image of a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crispseg.io.arrays import Normalize
from crispseg.io.value_range import OF_IMAGE, PIXELS, ValueRange
from crispseg.models import ModelInfo

BINS = 2**16  # of a histogram of 16 bits


class Pixels(nn.Module):
    """Normalisation of pixels `(N, H, W, C)`, uint8 or uint16, to images `(N, in_chans, H, W)`.

    Pixels of a model with a value range are uint16, and are scaled to 8 bits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        normalize = Normalize(info.mean, info.std, info.in_chans)
        self.register_buffer("mean", normalize.mean)
        self.register_buffer("std", normalize.std)
        self.in_chans, self.value_range = info.in_chans, info.value_range

    def forward(self, pixels: Tensor) -> Tensor:
        values = pixels.float() if self.value_range is None else in_8_bits(pixels, self.value_range)
        images = values.permute(0, 3, 1, 2).contiguous()  # (N, C, H, W); other strides would limit the sizes of a graph
        if self.in_chans == 1:
            images = images.mean(dim=1, keepdim=True)
        return (images - self.mean) / self.std


def in_8_bits(pixels: Tensor, value_range: ValueRange) -> Tensor:
    """Scale pixels `(N, H, W, C)` like `crispseg.io.value_range.to_8_bits`, as float32."""
    low: Tensor | float
    high: Tensor | float
    if value_range == "image":
        low, high = limits_of_images(pixels.int())[:, :, None, None, None].float().unbind(1)  # (N, 1, 1, 1) each
    else:
        low, high = value_range
    return ((pixels.float() - low) / (high - low)).clamp(0, 1).mul(255).round()


def limits_of_images(pixels: Tensor) -> Tensor:
    """Return black and white of each image like `crispseg.io.value_range.percentile_range`, `(N, 2)` int64.

    Percentiles are read off a cumulative histogram, since graphs of any image size cannot sort the sampled pixels.
    """
    count, height, width, channels = pixels.shape
    step = (torch.full((), height, dtype=torch.float64) * width / PIXELS).sqrt().ceil()
    rows, columns = (torch.arange(side, dtype=torch.float64).remainder(step) == 0 for side in (height, width))
    sampled = (rows[:, None] & columns)[None, :, :, None].expand(count, height, width, channels)
    histogram = torch.zeros(count, BINS, dtype=torch.int64)
    histogram = histogram.scatter_add(1, pixels.long().flatten(1), sampled.long().flatten(1))
    equal = pixels == pixels[..., :1]
    grey = equal.flatten(1).all(1, keepdim=True)  # then each value is in all channels
    copies = torch.where(grey, equal[:, 0, 0].sum(1, keepdim=True), 1)
    up_to = histogram.cumsum(1) // copies  # number of sampled pixels of at most this value, (N, BINS)

    def in_order(places: Tensor) -> Tensor:
        """Return the values at places `(N, 2)` among the sorted ones."""
        return (up_to[:, None] <= places[..., None]).sum(2)

    last = up_to[:, -1] - 1
    places = torch.stack([last * round(10 * percent) for percent in OF_IMAGE], dim=1)  # in thousandths, (N, 2)
    before, after = in_order(places // 1000), in_order(places // 1000 + 1)
    between = (after - before) * (places % 1000)  # in thousandths
    low, high = before[:, 0] + between[:, 0] // 1000, before[:, 1] + (between[:, 1] + 999) // 1000
    return torch.stack([low, torch.maximum(high, low + 1)], dim=1)
