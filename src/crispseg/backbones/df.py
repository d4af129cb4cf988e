"""DF1 and DF2: Li et al., *Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural Architecture Search*,
CVPR 2019, as SFNet's released code builds them and with its names, so that its checkpoints fit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.models.resnet import BasicBlock

from crispseg.backbones.timm_networks import Pyramid, Stage, kaiming, pyramid_of_stages, refuse_extras

# Residual stages after the stem: name, channels, blocks, stride of the output in pixels of the image.
DF_STAGES: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    "df1": (
        ("stage2", 64, 3, 8),
        ("stage3", 128, 3, 16),
        ("stage4", 256, 3, 32),
        ("stage5", 512, 1, 32),
    ),
    "df2": (
        ("stage2_1", 64, 2, 8),
        ("stage2_2", 128, 1, 8),
        ("stage3_1", 128, 10, 16),
        ("stage3_2", 256, 1, 16),
        ("stage4_1", 256, 4, 32),
        ("stage4_2", 512, 2, 32),
    ),
}

# Of the features that SFNet's released code takes: 128, 256 and 512 channels in both.
DF_STRIDES = {"df1": (16, 32, 32), "df2": (8, 16, 32)}


def build_df(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build DF1 or DF2.

    Raises:
        CrispsegError: published weights, dilation, or features that it does not have are asked for.
    """
    refuse_extras(name, published, output_stride)
    stages = {"stage1": Stage(_stem(in_chans), 64, 4)}
    plan = (("stage1", 64, 0, 4), *DF_STAGES[name])
    for (_, before, _, stride_before), (key, channels, blocks, stride) in pairwise(plan):
        stages[key] = Stage(_residual_stage(before, channels, blocks, stride // stride_before), channels, stride)
    kaiming(stages.values())
    return pyramid_of_stages(name, stages, strides, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def _stem(in_chans: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_chans, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    )


def _residual_stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of two 3×3 convolutions; every stage changes size or width, so its first shortcut is a convolution."""
    shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
