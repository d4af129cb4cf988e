"""Backbones of the papers that timm lacks.

- DF1 and DF2: Li et al., *Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural Architecture Search*, CVPR
  2019. They follow SFNet's released code and its names, so that its checkpoints match.
- ShuffleNet v2: Ma et al., *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design*, ECCV 2018. The
  network and its weights are torchvision's.
- STDC-1 and STDC-2: Fan et al., *Rethinking BiSeNet For Real-time Semantic Segmentation*, CVPR 2021, §3.1 and §3.2.
  Names are those of its released code, which SFNet-Lite's code also uses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models import shufflenet_v2_x1_0
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock

from crispseg.backbones.timm_networks import Pyramid, deepest
from crispseg.nn import conv_bn_relu


class Stage(NamedTuple):
    """Stage of a network; stages run one after another."""

    module: nn.Module
    channels: int
    stride: int  # stride of the output, in pixels of the image


class Stages(IntermediateLayerGetter):  # type: ignore[misc]
    """Sequence of stages; some return features, and stages after the last feature are omitted."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [*super().forward(images).values()]


def pyramid_of_stages(name: str, stages: Mapping[str, Stage], strides: Sequence[int]) -> Pyramid:
    """Return a network of stages as a pyramid of features with these strides; errors are those of `deepest`."""
    names = list(stages)
    available = [stage.stride for stage in stages.values()]
    taken = [names[index] for index in deepest(name, available, strides)]
    modules = OrderedDict((key, stage.module) for key, stage in stages.items())
    net = Stages(nn.Sequential(modules), dict(zip(taken, taken, strict=True)))
    channels = tuple(stages[key].channels for key in taken)
    return Pyramid(net, net, tuple(strides), channels, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def kaiming(stages: Iterable[Stage]) -> None:
    """Initialise convolutions like the networks' own code."""
    for stage in stages:
        for module in stage.module.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# Residual stages after the stem: name, channels, blocks, stride of the output in pixels of the image.
DF_STAGES: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    "df1": (("stage2", 64, 3, 8), ("stage3", 128, 3, 16), ("stage4", 256, 3, 32), ("stage5", 512, 1, 32)),
    "df2": (
        ("stage2_1", 64, 2, 8),
        ("stage2_2", 128, 1, 8),
        ("stage3_1", 128, 10, 16),
        ("stage3_2", 256, 1, 16),
        ("stage4_1", 256, 4, 32),
        ("stage4_2", 512, 2, 32),
    ),
}

# Strides of the features in SFNet's released code: 128, 256 and 512 channels in both.
DF_STRIDES = {"df1": (16, 32, 32), "df2": (8, 16, 32)}


def build_df(name: str, in_chans: int, strides: Sequence[int]) -> Pyramid:
    """Build DF1 or DF2; errors are those of `pyramid_of_stages`."""
    stem = nn.Sequential(*conv_bn_relu(in_chans, 32, 3, stride=2), *conv_bn_relu(32, 64, 3, stride=2))
    previous = Stage(stem, 64, 4)
    stages = {"stage1": previous}
    for key, channels, blocks, stride in DF_STAGES[name]:
        stage = _residual_stage(previous.channels, channels, blocks, stride // previous.stride)
        previous = stages[key] = Stage(stage, channels, stride)
    kaiming(stages.values())
    return pyramid_of_stages(name, stages, strides)


def _residual_stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Build blocks of two 3×3 convolutions; a stage changes size or width, so its first shortcut is a convolution."""
    shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


SHUFFLENET = "shufflenetv2_x1_0"


def build_shufflenet(name: str, in_chans: int, strides: Sequence[int]) -> Pyramid:
    """Build ShuffleNet v2 1.0×. The last 1×1 convolution gives the deepest feature of stride 32, with 1024 channels."""
    net = shufflenet_v2_x1_0(weights=None)
    if in_chans != 3:
        net.conv1[0] = nn.Conv2d(in_chans, 24, 3, stride=2, padding=1, bias=False)
    plan = {"conv1": (24, 2), "maxpool": (24, 4), "stage2": (116, 8), "stage3": (232, 16), "stage4": (464, 32)}
    stages = {key: Stage(getattr(net, key), *sizes) for key, sizes in (plan | {"conv5": (1024, 32)}).items()}
    return pyramid_of_stages(name, stages, strides)


# Number of modules at strides 8, 16 and 32, with 256, 512 and 1024 channels.
STDC_MODULES = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}


class ShortTermDenseConcatenate(nn.Module):
    """STDC module (Fig. 3b and c): four convolutions in sequence with concatenation of all outputs.

    The first is 1×1 with half of the channels; 3×3 ones with a quarter, an eighth and an eighth follow. With stride 2,
    a depthwise convolution reduces the first output for the others, and average pooling for the concatenation.
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
        """Map `(N, in_channels, H, W)` to `(N, channels, ⌈H / stride⌉, ⌈W / stride⌉)`."""
        first, *others = self.conv_list
        x = first(x)
        outputs = [self.skip(x)]
        x = self.avd_layer(x)
        for conv in others:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def build_stdc(name: str, in_chans: int, strides: Sequence[int]) -> Pyramid:
    """Build STDC-1 or STDC-2; errors are those of `pyramid_of_stages`."""
    stages = [Stage(_conv(in_chans, 32, 3, 2), 32, 2), Stage(_conv(32, 64, 3, 2), 64, 4)]
    for modules, channels, stride in zip(STDC_MODULES[name], (256, 512, 1024), (8, 16, 32), strict=True):
        for index in range(modules):
            module = ShortTermDenseConcatenate(stages[-1].channels, channels, 1 if index else 2)
            stages.append(Stage(module, channels, stride))
    kaiming(stages)
    named = {str(index): stage for index, stage in enumerate(stages)}
    network = pyramid_of_stages(name, named, strides)
    return network._replace(body=nn.ModuleDict({"features": network.features}))


def _conv(in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
