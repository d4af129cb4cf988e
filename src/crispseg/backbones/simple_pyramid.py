"""Simple feature pyramid: Li et al., *Exploring Plain Vision Transformer Backbones for Object Detection* (ViTDet), ECCV
2022, §3."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from crispseg.backbones.timm_networks import Pyramid, build_plain
from crispseg.nn import pad_to_multiple, same_layout

LEVEL_WIDTH = 256  # channels of a level (§4.1), or fewer if the transformer has fewer


class SimplePyramid(nn.Module):
    """Levels of several strides from the last map of a plain vision transformer (§3).

    Each level has its own layers, without lateral or top-down connections. A patch size that is not a power of two has
    its map resized to the nearest one first, in coordinates of the image, such as from stride 14 to 16.

    Args:
        plain: network that returns its last map.
        patch: patch size, the stride of this map.
        channels: channels of this map.
        strides: strides of the levels, powers of two.
    """

    def __init__(self, plain: nn.Module, patch: int, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.plain = plain
        self.patch = patch
        self.stride = 2 ** round(math.log2(patch))
        self.width = min(LEVEL_WIDTH, channels)
        self.levels = nn.ModuleList(_level(channels, self.width, self.stride, stride) for stride in strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute one level per stride of images whose sides are multiples of `stride` and of all strides."""
        (deepest,) = self.plain(pad_to_multiple(images, self.patch))
        if self.patch != self.stride:  # not `size`: the images with padding are not of this size
            deepest = F.interpolate(deepest, scale_factor=self.patch / self.stride, mode="bilinear")
        return [level(same_layout(deepest)) for level in self.levels]


class Norm(LayerNorm2d):  # type: ignore[misc]
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return same_layout(super().forward(x))


def _level(channels: int, width: int, stride: int, target: int) -> nn.Sequential:
    """Build the layers of one level: change of stride, then a 1×1 and a 3×3 convolution with LayerNorm each."""
    layers: OrderedDict[str, Any] = OrderedDict()
    if target > stride:
        layers["pool"] = nn.MaxPool2d(target // stride)
    for step in range(int(math.log2(stride / target))):  # none if the stride is kept or grows
        if step:
            layers |= {f"norm{step}": Norm(channels), f"act{step}": nn.GELU()}
        layers[f"up{step}"] = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        channels //= 2
    layers |= {"reduce": nn.Conv2d(channels, width, 1, bias=False), "reduce_norm": Norm(width)}
    layers |= {"conv": nn.Conv2d(width, width, 3, padding=1, bias=False), "conv_norm": Norm(width)}
    return nn.Sequential(layers)


def build_simple_pyramid(name: str, published: bool, in_chans: int, strides: Sequence[int]) -> Pyramid:
    """Build a plain timm network with a simple feature pyramid; errors are those of `build_plain`.

    Published weights are those of the plain network; the pyramid's own layers start randomly.
    """
    plain = build_plain(name, published, in_chans, levels=1)
    net = SimplePyramid(plain.features, plain.strides[0], plain.channels[0], strides)
    divisor = max(net.stride, *strides)
    return plain._replace(features=net, strides=tuple(strides), channels=(net.width,) * len(strides), divisor=divisor)
