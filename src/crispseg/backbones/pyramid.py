"""Common interface of all backbones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import ShuffleNet_V2_X1_0_Weights

from crispseg.backbones.light import DF_STRIDES, SHUFFLENET, STDC_MODULES, build_df, build_shufflenet, build_stdc
from crispseg.backbones.simple_pyramid import SimplePyramid, build_simple_pyramid
from crispseg.backbones.timm_networks import (
    DEEP_RESNETS,
    Pyramid,
    build_plain,
    build_timm,
    cannot_dilate,
    plain_strides,
)
from crispseg.backbones.weights import bundled_weights, load_weights, read_state_dict
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.nn import ceil_div, pad_to_multiple, same_layout

PYRAMID_STRIDES = (4, 8, 16, 32)

_DF, _STDC = dict.fromkeys(DF_STRIDES, build_df), dict.fromkeys(STDC_MODULES, build_stdc)
_BUILDERS = {**_DF, **_STDC, SHUFFLENET: build_shufflenet}

NAMED_BACKBONES = (*DEEP_RESNETS, *_BUILDERS)
"""Names of backbones that timm lacks."""


class Backbone(nn.Module):
    """Network as a feature pyramid.

    Args:
        name: any timm model name with a feature pyramid, a timm ViT, or one of `NAMED_BACKBONES`. A ViT gets a simple
            feature pyramid (`SimplePyramid`).
        pretrained: `False`; `True` for the published weights (timm's, or torchvision's of ShuffleNet); those of
            `tf_efficientnet_lite0` are part of the package, and others are downloaded. A path loads a weight file
            (`.safetensors` or a plain state dict) with the published keys.
        in_chans: channels of the image.
        strides: strides of the features to return, finest first. Each gives the deepest feature of its stride; a
            repeated stride gives the two deepest. The default is 4, 8, 16 and 32 up to `output_stride`; on DF1 and DF2,
            it follows SFNet's released code.
        output_stride: 16 or 8 dilates the last stages, which then keep their resolution.
        blocks: number of features to return from a network with blocks of one resolution, such as a ViT. They are the
            outputs of equally spaced blocks, including the last. It replaces the strides and the simple pyramid.

    Attributes:
        channels, strides: channels and strides of the returned features, finest first.
        in_chans: channels of the image.
        mean, std: statistics of the expected images, one value per input channel, for images in 0..1.
        pads_by_size: whether its padding depends on the parity of sizes.

    Raises:
        CrispsegError: the name is unknown; a stride has no feature; dilation is impossible; weights are missing or do
            not match.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | Path = False,
        in_chans: int = 3,
        strides: Sequence[int] | None = None,
        output_stride: int = 32,
        blocks: int | None = None,
    ) -> None:
        super().__init__()
        check_name(name, pretrained)
        if pretrained is True:
            pretrained = bundled_weights(name) or True
        if blocks is not None:
            network = build_plain(name, pretrained is True, in_chans, blocks)
        else:
            network = build_pyramid(name, pretrained is True, in_chans, strides, output_stride)
        self.net: Any = network.features
        self._divisor = network.divisor
        self.strides = network.strides
        self.channels = network.channels
        self.mean = _per_channel(network.mean, in_chans)
        self.std = _per_channel(network.std, in_chans)
        self.in_chans = in_chans
        # timm's names of convolutions and pools with the padding of TensorFlow's SAME
        self.pads_by_size = any(type(module).__name__.endswith("Same") for module in self.net.modules())
        self.frozen: list[nn.Module] = []
        if not isinstance(pretrained, bool):
            load_weights(network.body, read_state_dict(pretrained), name, pretrained)
        elif pretrained and name == SHUFFLENET:  # timm has loaded those of its networks
            weights = ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True)
            load_weights(network.body, dict(weights), name, "torchvision's file")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute one feature per stride, `(N, channels[i], ⌈H / strides[i]⌉, ⌈W / strides[i]⌉)`."""
        height, width = images.shape[-2:]
        features: list[Tensor] = self.net(pad_to_multiple(images, self._divisor))
        if self._divisor > 1:
            features = [
                same_layout(feature[..., : ceil_div(height, stride), : ceil_div(width, stride)])
                for feature, stride in zip(features, self.strides, strict=True)
            ]
        return features

    @property
    def body(self) -> nn.Module:
        """Network without the layers of a simple feature pyramid, which have no published weights."""
        return self.net.plain if isinstance(self.net, SimplePyramid) else self.net

    def freeze(self, *, early: bool = False) -> None:
        """Freeze all batch-norm statistics and all weights of `body`; `early` only those of the finest feature."""
        fixed = self._upstream() if early else {*self.body.parameters()}
        for parameter in fixed:
            parameter.requires_grad_(False)
        for module in self.modules():
            inside = {*module.parameters()}
            if isinstance(module, _BatchNorm) or (inside and inside <= fixed):
                self.frozen += module.modules()
        self.train(self.training)

    @property
    def early_share(self) -> float:
        """Return the fraction of the weights of `body` that `freeze(early=True)` freezes."""
        fixed = sum(map(Tensor.numel, self._upstream()))
        return fixed / sum(map(Tensor.numel, self.body.parameters()))

    @torch.enable_grad()
    def _upstream(self) -> set[nn.Parameter]:
        """Return the parameters of the finest feature, found by autograd on meta tensors, without arithmetic."""
        if self.body is not self.net:  # every level of a simple pyramid uses the whole network
            return {*self.body.parameters()}
        parameters = dict(self.net.named_parameters())
        # Each is a new leaf, even if its parameter is already frozen.
        meta = {key: torch.empty_like(value, device="meta", requires_grad=True) for key, value in parameters.items()}
        buffers = {key: value.to("meta") for key, value in self.net.named_buffers()}
        side = self._divisor * self.strides[-1]
        images = torch.empty(2, self.in_chans, side, side, device="meta")
        finest = torch.func.functional_call(self.net, {**meta, **buffers}, (images,))[0]
        gradients = torch.autograd.grad(finest.sum(), list(meta.values()), allow_unused=True)
        reached = zip(parameters.values(), gradients, strict=True)
        return {parameter for parameter, gradient in reached if gradient is not None}

    def dilate(self) -> None:
        """Dilate the second convolution of each residual block, by 2 at stride 16 and 4 at stride 32; keep strides.

        SFNet's released code does this in its ResNets; any other network raises a `CrispsegError`.
        """
        try:
            for stage, dilation in ((self.net.model.layer3, 2), (self.net.model.layer4, 4)):
                for block in stage:
                    block.conv2.dilation = block.conv2.padding = (dilation, dilation)
        except AttributeError:
            raise CrispsegError("released_dilation is for ResNets, such as 'resnet18_deep'; leave it out") from None

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self


def check_name(name: str, pretrained: bool | str | Path) -> None:
    """Raise a CrispsegError if a backbone is unknown, or lacks the published weights that are asked for."""
    if name in NAMED_BACKBONES:
        if pretrained is True and name != SHUFFLENET:
            raise CrispsegError(f"'{name}' has no published weights; give pretrained a path, or use 'resnet18'")
    elif not timm.is_model(name):
        hint = did_you_mean(name, [*NAMED_BACKBONES, *timm.list_models()])
        works = f"{', '.join(NAMED_BACKBONES)} and any timm ViT or model with a feature pyramid work"
        raise CrispsegError(f"unknown backbone '{name}'{hint} ({works})")


def build_pyramid(
    name: str, published: bool, in_chans: int, strides: Sequence[int] | None, output_stride: int
) -> Pyramid:
    """Build a network with features of several strides; a vision transformer gets a simple feature pyramid."""
    if strides is None:
        strides = DF_STRIDES.get(name) or [stride for stride in PYRAMID_STRIDES if stride <= output_stride]
    if name in _BUILDERS:
        if output_stride < 32:
            raise cannot_dilate(name, output_stride)
        return _BUILDERS[name](name, in_chans, strides)
    if plain_strides(name):
        return build_simple_pyramid(name, published, in_chans, strides)
    return build_timm(name, published, in_chans, strides, output_stride)


def _per_channel(values: Sequence[float], in_chans: int) -> tuple[float, ...]:
    """Return RGB statistics for any number of channels: their mean for one, a repetition for more than three."""
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(itertools.islice(itertools.cycle(values), in_chans))
