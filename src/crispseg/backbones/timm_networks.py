"""timm's networks as feature pyramids, including vision transformers of one resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import MethodType
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, resample_abs_pos_embed
from timm.layers.padding import get_same_padding
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crispseg.backbones.weights import build_published
from crispseg.errors import CrispsegError
from crispseg.nn import ceil_div

# A deep stem has three 3×3 convolutions 64-64-128 instead of the 7×7, as in the papers' code.
DEEP_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_deep": ("resnet18", {"stem_type": "deep", "stem_width": 64}),
    "resnet50_deep": ("resnet50s", {}),
    "resnet101_deep": ("resnet101s", {}),
}


def build_timm(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build a timm network for any image size; `published` loads timm's weights."""
    timm_name, options, divisor = _plan(name, tuple(strides), output_stride)
    return _pyramid(build_published(timm_name, published, in_chans=in_chans, **options), divisor)


def _pyramid(net: Any, divisor: int) -> Pyramid:
    """Return a timm network with its properties, after replacing its convolutions by lean ones."""
    for module in net.modules():
        if type(module) is Conv2dSame:
            module.__class__ = LeanConv2dSame
    strides, channels, config = net.feature_info.reduction(), net.feature_info.channels(), net.model.pretrained_cfg
    return Pyramid(net, net.model, tuple(strides), tuple(channels), config["mean"], config["std"], divisor)


@cache
def _plan(name: str, strides: tuple[int, ...], output_stride: int) -> tuple[str, dict[str, Any], int]:
    """Return name and options of timm's network with features of these strides, and the multiple for padding.

    It tries the network on meta tensors, which compute shapes without arithmetic.
    """
    timm_name, options = DEEP_RESNETS.get(name, (name, {}))
    options = {"features_only": True, "feature_cls": "getter", **options}
    if output_stride < 32:
        options["output_stride"] = output_stride
    with torch.device("meta"):
        options["out_indices"] = deepest(name, _strides(name, timm_name, options), strides)
        for extra in ({}, {"strict_img_size": False}):  # the latter lets Swin accept other sizes
            with suppress(TypeError):  # other networks lack the option
                net = timm.create_model(timm_name, **options, **extra).eval()
                for divisor in (1, strides[-1]):
                    if _fits(net, 33 * divisor, 57 * divisor) and _fits(net, 48 * divisor, 35 * divisor):
                        return timm_name, options | extra, divisor
    raise CrispsegError(
        f"backbone '{name}' supports only fixed image sizes; a ResNet, ConvNeXt, Swin or EfficientNet supports any size"
    )


def _strides(name: str, timm_name: str, options: Mapping[str, Any]) -> list[int]:
    """Return the strides of all features of timm's network with these options; `name` is for errors."""
    try:
        strides: list[int] = timm.create_model(timm_name, **options).feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError, TypeError):  # errors of timm for refused options
        if "output_stride" in options:
            raise cannot_dilate(name, options["output_stride"]) from None
        raise CrispsegError(f"backbone '{name}' has no features; choose one such as 'resnet18'") from None
    if max(strides) > options.get("output_stride", math.inf):
        raise cannot_dilate(name, options["output_stride"])
    return strides


def _fits(net: Any, height: int, width: int) -> bool:
    """Return whether features have size ⌈H / stride⌉."""
    try:
        features = net(torch.empty(1, 3, height, width))
    except (AssertionError, RuntimeError):  # timm's networks refuse a size by these errors
        return False
    strides = net.feature_info.reduction()
    sizes = [(ceil_div(height, stride), ceil_div(width, stride)) for stride in strides]
    return [feature.shape[-2:] for feature in features] == sizes


class Pyramid(NamedTuple):
    """Network that returns features, with the properties of these features."""

    features: nn.Module  # module from `(N, in_chans, H, W)` to a list of features, finest first
    body: nn.Module  # part of `features` with the keys of published weights
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]
    divisor: int = 1  # images must be padded to a multiple of this, so that features have size ⌈H / stride⌉


def deepest(name: str, available: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the indices in `available` of the deepest features with strides `wanted`, finest first.

    A repeated stride selects its two deepest features.
    """
    indices: list[int] = []
    limit = len(available)
    for stride in reversed(wanted):
        candidates = [index for index in range(limit) if available[index] == stride]
        if not candidates:
            raise CrispsegError(
                f"backbone '{name}' has features at strides {sorted({*available})}, but {list(wanted)} are needed; "
                "use one with a feature pyramid, such as 'resnet18', 'convnext_tiny' or 'tf_efficientnet_lite0'"
            )
        limit = candidates[-1]
        indices.insert(0, limit)
    return tuple(indices)


def cannot_dilate(name: str, output_stride: int) -> CrispsegError:
    """Return the error for a backbone that cannot keep the resolution of its last stages."""
    return CrispsegError(
        f"backbone '{name}' cannot be dilated to output_stride {output_stride}; ResNets, ConvNeXts and EfficientNets "
        "can, such as 'resnet18_deep', 'convnext_tiny' or 'tf_efficientnet_lite0'"
    )


@cache
def plain_strides(name: str) -> list[int]:
    """Return each block's stride in a timm network with equal strides; the list is empty for any other network."""
    if not timm.is_model(name):
        return []
    with torch.device("meta"):  # shapes only
        try:
            model = timm.create_model(name)
        except (RuntimeError, NotImplementedError):  # some networks cannot run on meta tensors; none is a ViT
            return []
    strides = [entry["reduction"] for entry in getattr(model, "feature_info", ())]
    return strides if len({*strides}) == 1 and hasattr(model, "forward_intermediates") else []


def build_plain(name: str, published: bool, in_chans: int, levels: int) -> Pyramid:
    """Build a network of blocks of one stride; it returns the outputs of equally spaced blocks, including the last.

    A ViT's class and distillation tokens are dropped after the last block, and its final norm is omitted. Its position
    embeddings are resized bilinearly to the image's size; timm's other networks resize theirs.
    """
    strides = plain_strides(name)
    taken = tuple(round(len(strides) * (level + 1) / levels) - 1 for level in range(levels))
    options: dict[str, Any] = {"features_only": True, "feature_cls": "getter", "out_indices": taken}
    try:
        net = build_published(name, published, in_chans=in_chans, dynamic_img_size=True, **options)
    except TypeError:  # the network lacks the option
        raise CrispsegError(
            f"backbone '{name}' supports only fixed image sizes, or lacks timm's option dynamic_img_size; timm's ViTs "
            "and DeiTs, such as 'vit_base_patch16_224', and networks with a pyramid support any size"
        ) from None
    if isinstance(net.model, VisionTransformer):
        net.model._pos_embed = MethodType(_add_positions, net.model)
    return _pyramid(net, strides[0])


def _add_positions(vit: Any, patches: Tensor) -> Tensor:
    """Add bilinearly resized positions to patches `(B, h, w, C)`; return tokens `(B, T + h·w, C)` like timm's ViT."""
    tokens = (vit.cls_token, getattr(vit, "dist_token", None), vit.reg_token)  # DeiT has a second one
    prefix = [token.expand(patches.shape[0], -1, -1) for token in tokens if token is not None]
    x = torch.cat([*prefix, patches.flatten(1, 2)], dim=1)
    if vit.pos_embed is None:
        return x
    own = vit.num_prefix_tokens * (not vit.no_embed_class)
    positions = resample_abs_pos_embed(  # (1, own + h · w, C)
        vit.pos_embed, patches.shape[1:3], vit.patch_embed.grid_size, own, "bilinear", antialias=False
    )
    return vit.pos_drop(x + F.pad(positions, (0, 0, vit.num_prefix_tokens - own, 0)))


class LeanConv2dSame(Conv2dSame):  # type: ignore[misc]
    """timm's `Conv2dSame`; prediction uses a convolution that pads all sides equally and drops its first outputs.

    For uneven padding, such as one row below and none above, timm writes a padded copy of its input. This takes a tenth
    of the time of `crisp` on `tf_efficientnet_lite0`. Outputs differ by rounding only. Backward passes are faster with
    the copy, and graphs pad within the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to `(N, C', ⌈H / stride⌉, ⌈W / stride⌉)`."""
        graph = torch.compiler.is_exporting() or torch.compiler.is_compiling()
        if graph or torch.is_grad_enabled() or x.is_meta:  # meta tensors count multiply-adds, without dropped outputs
            return super().forward(x)
        sizes, kernels = x.shape[-2:], self.weight.shape[-2:]
        pads, drops = [], []
        for size, kernel, stride, dilation in zip(sizes, kernels, self.stride, self.dilation, strict=True):
            missing = get_same_padding(size, kernel, stride, dilation)
            uneven = missing % 2
            pads.append(missing // 2 + stride * uneven)
            drops.append(uneven)
        outputs = F.conv2d(x, self.weight, self.bias, self.stride, pads, self.dilation, self.groups)
        height, width = map(ceil_div, sizes, self.stride)
        return outputs[..., drops[0] : drops[0] + height, drops[1] : drops[1] + width]
