"""STDC-1 and STDC-2: Fan et al., *Rethinking BiSeNet For Real-time Semantic Segmentation*, CVPR 2021, §3.1 and §3.2.

With the names of its released code, which SFNet-Lite's has too, so that checkpoints of both fit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from crispseg.backbones.timm_networks import Pyramid, Stage, kaiming, pyramid_of_stages, refuse_extras

# Modules at strides 8, 16 and 32, of 256, 512 and 1024 channels.
STDC_MODULES = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}


class ShortTermDenseConcatenate(nn.Module):
    """STDC module (Fig. 3b and c): four convolutions in a row, of which all outputs are concatenated.

    The first is 1×1 to half the channels, then come 3×3 ones to a quarter, an eighth and an eighth. With stride 2, the
    first output reaches the others by a depthwise convolution and the concatenation by average pooling.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        widths = (half, channels // 4, channels // 8, channels // 8)
        others = (_conv(before, after, 3) for before, after in pairwise(widths))
        self.conv_list = nn.ModuleList([_conv(in_channels, half, 1), *others])
        self.avd_layer: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            depthwise = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
            self.avd_layer = nn.Sequential(depthwise, nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` → `(N, channels, ⌈H / stride⌉, ⌈W / stride⌉)`."""
        first, *others = self.conv_list
        x = first(x)
        outputs = [self.skip(x)]
        x = self.avd_layer(x)
        for conv in others:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def build_stdc(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build STDC-1 or STDC-2.

    Raises:
        CrispsegError: published weights, dilation, or features that it does not have are asked for.
    """
    refuse_extras(name, published, output_stride)
    stages = [Stage(_conv(in_chans, 32, 3, 2), 32, 2), Stage(_conv(32, 64, 3, 2), 64, 4)]
    for modules, channels, stride in zip(STDC_MODULES[name], (256, 512, 1024), (8, 16, 32), strict=True):
        for index in range(modules):
            module = ShortTermDenseConcatenate(stages[-1].channels, channels, 1 if index else 2)
            stages.append(Stage(module, channels, stride))
    kaiming(stages)
    named = {str(index): stage for index, stage in enumerate(stages)}
    network = pyramid_of_stages(name, named, strides, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return network._replace(body=nn.ModuleDict({"features": network.features}))


def _conv(in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
