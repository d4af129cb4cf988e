"""timm's networks as feature pyramids, vision transformers of one resolution among them."""

from __future__ import annotations

from collections.abc import Sequence
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

# Deep stem: three 3×3 convolutions 64-64-128 instead of the 7×7, as in the papers' code.
DEEP_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_deep": ("resnet18", {"stem_type": "deep", "stem_width": 64}),
    "resnet50_deep": ("resnet50s", {}),
    "resnet101_deep": ("resnet101s", {}),
}


def build_timm(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build a network of timm, with timm's published weights if asked, that works at any image size."""
    timm_name, options, divisor = _plan(name, tuple(strides), output_stride)
    return _pyramid(build_published(timm_name, published, in_chans=in_chans, **options), divisor)


def _pyramid(net: Any, divisor: int) -> Pyramid:
    """Return a network of timm, whose convolutions become lean ones, with the properties that it states."""
    for module in net.modules():
        if type(module) is Conv2dSame:
            module.__class__ = LeanConv2dSame
    strides, channels, config = net.feature_info.reduction(), net.feature_info.channels(), net.model.pretrained_cfg
    return Pyramid(net, net.model, tuple(strides), tuple(channels), config["mean"], config["std"], divisor)


@cache
def _plan(name: str, strides: tuple[int, ...], output_stride: int) -> tuple[str, dict[str, Any], int]:
    """Name and options of timm's network for features of these strides, and the multiple to which images are padded.

    It is tried on meta tensors: shapes only, no arithmetic.
    """
    timm_name, options = DEEP_RESNETS.get(name, (name, {}))
    options = {"features_only": True, "feature_cls": "getter", **options}
    if output_stride < 32:
        options["output_stride"] = output_stride
    with torch.device("meta"):
        try:
            found = timm.create_model(timm_name, **options).feature_info.reduction()
        except (RuntimeError, AttributeError, AssertionError, TypeError):  # how timm's networks refuse an option
            if output_stride < 32:
                raise cannot_dilate(name, output_stride) from None
            raise CrispsegError(f"backbone '{name}' offers no features at all; choose one such as 'resnet18'") from None
        if output_stride < 32 and max(found) > output_stride:
            raise cannot_dilate(name, output_stride)
        options["out_indices"] = deepest(name, found, strides)
        for extra in ({}, {"strict_img_size": False}):  # the latter frees Swin of its training size
            with suppress(TypeError):  # others do not know it
                net = timm.create_model(timm_name, **options, **extra).eval()
                for divisor in (1, strides[-1]):
                    sizes = ((33 * divisor, 57 * divisor), (48 * divisor, 35 * divisor))
                    if all(_fits(net, *size) for size in sizes):
                        return timm_name, options | extra, divisor
    raise CrispsegError(
        f"backbone '{name}' works at fixed image sizes only; a ResNet, ConvNeXt, Swin or EfficientNet works at any"
    )


def _fits(net: Any, height: int, width: int) -> bool:
    """Whether features have size ⌈H / stride⌉."""
    try:
        features = net(torch.empty(1, 3, height, width))
    except (AssertionError, RuntimeError):  # how timm's networks refuse a size
        return False
    strides = net.feature_info.reduction()
    return [feature.shape[-2:] for feature in features] == [(-(-height // s), -(-width // s)) for s in strides]


class Pyramid(NamedTuple):
    """A network that returns features, with the properties of these features."""

    features: nn.Module
    """`(N, in_chans, H, W)` → list of features, finest first."""
    body: nn.Module
    """The part of `features` that has the keys of published weights."""
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]
    divisor: int = 1
    """Images must be padded to a multiple of this, so that features have size ⌈H / stride⌉."""


def deepest(name: str, found: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the places in `found` of the deepest features of strides `wanted`, finest first.

    A stride that is wanted twice has its two deepest features taken.
    """
    chosen: list[int] = []
    for stride in reversed(wanted):
        before = range(chosen[0] if chosen else len(found))
        at = max((index for index in before if found[index] == stride), default=None)
        if at is None:
            raise CrispsegError(
                f"backbone '{name}' has features at strides {sorted(set(found))}, but {list(wanted)} are needed; "
                "one with a feature pyramid works, such as 'resnet18', 'convnext_tiny' or 'tf_efficientnet_lite0'"
            )
        chosen.insert(0, at)
    return tuple(chosen)


def cannot_dilate(name: str, output_stride: int) -> CrispsegError:
    """The error for a backbone whose last stages cannot keep their resolution."""
    return CrispsegError(
        f"backbone '{name}' cannot be dilated to output_stride {output_stride}; ResNets, ConvNeXts and EfficientNets "
        "can, such as 'resnet18_deep', 'convnext_tiny' or 'tf_efficientnet_lite0'"
    )


def plain_strides(name: str) -> list[int]:
    """The stride of each block of a timm network whose blocks all have the same; none for any other network."""
    if name in DEEP_RESNETS or not timm.is_model(name):
        return []
    with torch.device("meta"):  # shapes only
        try:
            model = timm.create_model(name)
        except (RuntimeError, NotImplementedError):  # some compute what they cannot on meta tensors; none is a ViT
            return []
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not hasattr(model, "forward_intermediates"):
        return []
    strides = [entry["reduction"] for entry in info]
    return strides if len({*strides}) == 1 else []


def build_plain(name: str, published: bool, in_chans: int, levels: int) -> Pyramid:
    """Build a network of blocks of one stride; it returns the outputs of equally spaced ones, the last among them.

    A ViT's class and distillation tokens are dropped after the last block, and its final norm is left out. Its position
    embeddings are resized bilinearly to the image's size, those of timm's other networks as timm does.
    """
    strides = plain_strides(name)
    taken = tuple(round(len(strides) * (level + 1) / levels) - 1 for level in range(levels))
    options: dict[str, Any] = {"features_only": True, "feature_cls": "getter", "out_indices": taken}
    try:
        net = build_published(name, published, in_chans=in_chans, dynamic_img_size=True, **options)
    except TypeError:  # it does not know the option
        raise CrispsegError(
            f"backbone '{name}' works at fixed image sizes only; timm's ViTs and DeiTs work at any, such as "
            "'vit_base_patch16_224', and networks with a pyramid"
        ) from None
    if isinstance(net.model, VisionTransformer):
        net.model._pos_embed = MethodType(_add_positions, net.model)
    return _pyramid(net, strides[0])


def _add_positions(vit: Any, patches: Tensor) -> Tensor:
    """timm's `VisionTransformer._pos_embed`, resizing bilinearly: patches `(B, h, w, C)` → tokens `(B, T + h·w, C)`."""
    named = (getattr(vit, token, None) for token in ("cls_token", "dist_token", "reg_token"))
    prefix = [token.expand(patches.shape[0], -1, -1) for token in named if token is not None]
    x = torch.cat([*prefix, patches.flatten(1, 2)], dim=1)
    if vit.pos_embed is None:
        return x
    own = 0 if vit.no_embed_class else vit.num_prefix_tokens
    positions = resample_abs_pos_embed(  # (1, own + h · w, C)
        vit.pos_embed, patches.shape[1:3], vit.patch_embed.grid_size, own, "bilinear", antialias=False
    )
    return vit.pos_drop(x + F.pad(positions, (0, 0, vit.num_prefix_tokens - own, 0)))


class LeanConv2dSame(Conv2dSame):  # type: ignore[misc]
    """timm's `Conv2dSame`, in prediction by a convolution that pads all sides alike and drops its first outputs.

    Where the padding is uneven, such as one row below and none above, timm writes a padded copy of its input: a tenth
    of the time of `crisp` on `tf_efficientnet_lite0`. Outputs differ by rounding alone. Backward passes are faster by
    the copy, and graphs pad within the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` → `(N, C', ⌈H / stride⌉, ⌈W / stride⌉)`."""
        graph = torch.compiler.is_exporting() or torch.compiler.is_compiling()
        if graph or torch.is_grad_enabled() or x.is_meta:  # on which multiply-adds are counted, without what is dropped
            return super().forward(x)
        sizes, kernels = x.shape[-2:], self.weight.shape[-2:]
        pads, drops = [], []
        for size, kernel, stride, dilation in zip(sizes, kernels, self.stride, self.dilation, strict=True):
            missing = get_same_padding(size, kernel, stride, dilation)
            uneven = missing % 2
            pads.append(missing // 2 + stride * uneven)
            drops.append(uneven)
        outputs = F.conv2d(x, self.weight, self.bias, self.stride, pads, self.dilation, self.groups)
        height, width = (-(-size // stride) for size, stride in zip(sizes, self.stride, strict=True))
        return outputs[..., drops[0] : drops[0] + height, drops[1] : drops[1] + width]
