"""timm's networks as feature pyramids, vision transformers of one resolution among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import MethodType
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crispseg.backbones.weights import build_published
from crispseg.errors import CrispsegError
from crispseg.nn import resize

# Deep stem: three 3×3 convolutions 64-64-128 instead of the 7×7, as in the papers' code.
DEEP_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_deep": ("resnet18", {"stem_type": "deep", "stem_width": 64}),
    "resnet50_deep": ("resnet50s", {}),
    "resnet101_deep": ("resnet101s", {}),
}


_FITTING: set[tuple[Any, ...]] = set()
"""Networks of which `fits` holds: a saved model is built twice, first as shapes alone."""


def build_timm(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build a network of timm, with timm's published weights if asked, that works at any image size.

    Raises:
        CrispsegError: it offers no such features, cannot be dilated, has no published weights, or is of a fixed size.
    """
    timm_name, options = DEEP_RESNETS.get(name, (name, {}))
    if options and published:
        raise CrispsegError(
            f"there are no published weights for '{name}'; give pretrained a path, or use '{timm_name}'"
        )
    options = {"features_only": True, "feature_cls": "getter", **options}
    if output_stride < 32:
        options["output_stride"] = output_stride
    found = _strides_of_all_features(name, timm_name, tuple(options.items()))
    options["out_indices"] = deepest(name, found, strides)
    net, divisor = _build_for_any_size(name, timm_name, published, in_chans, strides, options)
    info, config = net.feature_info, net.model.pretrained_cfg
    return Pyramid(
        net, net.model, tuple(info.reduction()), tuple(info.channels()), config["mean"], config["std"], divisor
    )


@cache
def _strides_of_all_features(name: str, timm_name: str, given: tuple[tuple[str, Any], ...]) -> list[int]:
    options = dict(given)
    output_stride = options.get("output_stride", 32)
    try:
        with torch.device("meta"):  # strides need no weights
            found = list(timm.create_model(timm_name, **options).feature_info.reduction())
    except (RuntimeError, AttributeError, AssertionError, TypeError):  # how timm's networks refuse an option
        if output_stride < 32:
            raise cannot_dilate(name, output_stride) from None
        raise CrispsegError(f"backbone '{name}' offers no features at all; choose one such as 'resnet18'") from None
    if output_stride < 32 and max(found) > output_stride:
        raise cannot_dilate(name, output_stride)
    return found


def _build_for_any_size(
    name: str, timm_name: str, published: bool, in_chans: int, strides: Sequence[int], options: dict[str, Any]
) -> tuple[Any, int]:
    """The network, and what its input must be padded to a multiple of so that features have size ⌈H / stride⌉."""
    for extra in ({}, {"strict_img_size": False}):  # the latter frees Swin of its training size
        try:
            net = build_published(name, timm_name, published, in_chans=in_chans, **options, **extra)
        except TypeError:  # others do not know it
            break
        for divisor in (1, strides[-1]):
            key = (timm_name, in_chans, divisor, *options.items(), *extra)
            sizes = ((33 * divisor, 57 * divisor), (48 * divisor, 35 * divisor))
            if key in _FITTING or all(fits(net, in_chans, *size) for size in sizes):
                _FITTING.add(key)
                return net, divisor
    raise CrispsegError(
        f"backbone '{name}' works at fixed image sizes only; a ResNet, ConvNeXt, Swin or EfficientNet works at any"
    )


def fits(net: Any, in_chans: int, height: int, width: int) -> bool:
    """Whether features have size ⌈H / stride⌉. Runs on meta tensors: shapes only, no arithmetic."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    images = torch.empty(1, in_chans, height, width, device="meta")
    net.eval()
    try:
        features = torch.func.functional_call(net, meta, (images,))
    except (AssertionError, RuntimeError):  # how timm's networks refuse a size
        return False
    finally:
        net.train()
    strides = net.feature_info.reduction()
    return all(
        feature.shape[-2:] == (-(-height // stride), -(-width // stride))
        for feature, stride in zip(features, strides, strict=True)
    )


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


class Stage(NamedTuple):
    """One of the stages that a network runs one after another."""

    module: nn.Module
    channels: int
    stride: int
    """Stride of its output, in pixels of the image."""


class Stages(nn.Sequential):
    """Stages in a row; `forward` returns the outputs of those `taken`. What follows the last of them is left out."""

    def __init__(self, stages: Mapping[str, nn.Module], taken: Sequence[str]) -> None:
        super().__init__()
        self.taken = frozenset(taken)
        for name in list(stages)[: list(stages).index(taken[-1]) + 1]:
            self.add_module(name, stages[name])

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        feature = images
        for name, stage in self.named_children():
            feature = stage(feature)
            if name in self.taken:
                features.append(feature)
        return features


def pyramid_of_stages(
    name: str, stages: Mapping[str, Stage], strides: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> Pyramid:
    """The features of the given strides of a network in stages; see `deepest`."""
    names = list(stages)
    taken = [names[index] for index in deepest(name, [stage.stride for stage in stages.values()], strides)]
    net = Stages({key: stage.module for key, stage in stages.items()}, taken)
    return Pyramid(net, net, tuple(strides), tuple(stages[key].channels for key in taken), mean, std)


def deepest(name: str, found: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Which of the features of strides `found` are the deepest ones of strides `wanted`, finest first.

    Where a stride is wanted twice, these are its two deepest features.

    Raises:
        CrispsegError: the backbone `name` has no such features.
    """
    chosen: list[int] = []
    for stride in reversed(wanted):
        before = found[: chosen[0]] if chosen else found
        candidates = [index for index, other in enumerate(before) if other == stride]
        if not candidates:
            raise CrispsegError(
                f"backbone '{name}' has features at strides {sorted(set(found))}, but {list(wanted)} are needed; "
                "one with a feature pyramid works, such as 'resnet18', 'convnext_tiny' or 'tf_efficientnet_lite0'"
            )
        chosen.insert(0, candidates[-1])
    return tuple(chosen)


def kaiming(stages: Iterable[Stage]) -> None:
    """Initial weights of the convolutions of networks that their own code initialises so."""
    for stage in stages:
        for module in stage.module.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def refuse_extras(name: str, published: bool, output_stride: int) -> None:
    """For networks without weights to download and without dilation.

    Raises:
        CrispsegError: one of them is asked for.
    """
    if published:
        raise CrispsegError(
            f"there are no published weights for '{name}' to download; give pretrained the path of a weight file"
        )
    if output_stride < 32:
        raise cannot_dilate(name, output_stride)


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
    """The outputs of equally spaced blocks, the last among them, at any image size.

    Of a ViT, class and distillation tokens are dropped after the last block and the final norm is left out. Its
    position embeddings are brought to the image's size bilinearly; timm's other kinds keep timm's own way.

    Raises:
        CrispsegError: no such blocks, or fewer than levels; no published weights; a fixed image size.
    """
    strides = plain_strides(name)
    if len(strides) < levels:
        raise CrispsegError(
            f"backbone '{name}' has no {levels} blocks of one resolution; use a ViT, such as 'vit_base_patch16_224'"
        )
    taken = tuple(round(len(strides) * (level + 1) / levels) - 1 for level in range(levels))
    options: dict[str, Any] = {"features_only": True, "feature_cls": "getter", "out_indices": taken}
    divisor, fitting = strides[-1], False
    with suppress(TypeError):  # it does not know the option
        net = build_published(name, name, published, in_chans=in_chans, dynamic_img_size=True, **options)
        if isinstance(net.model, VisionTransformer):
            net.model._pos_embed = MethodType(_add_positions, net.model)
        fitting = all(fits(net, in_chans, height * divisor, width * divisor) for height, width in ((3, 5), (4, 2)))
    if not fitting:
        raise CrispsegError(
            f"backbone '{name}' works at fixed image sizes only; timm's ViTs and DeiTs work at any, and networks with "
            "a pyramid, such as 'vit_base_patch16_224' or 'resnet50'"
        )
    config = net.model.pretrained_cfg
    channels = tuple(net.feature_info.channels())
    return Pyramid(net, net.model, (divisor,) * levels, channels, config["mean"], config["std"], divisor)


def _add_positions(vit: Any, patches: Tensor) -> Tensor:
    """timm's `VisionTransformer._pos_embed`, resizing bilinearly: patches `(B, h, w, C)` → tokens `(B, T + h·w, C)`."""
    height, width = patches.shape[1:3]
    x = patches.flatten(1, 2)  # (B, h · w, C)
    named = (getattr(vit, token, None) for token in ("cls_token", "dist_token", "reg_token"))
    prefix = [token.expand(x.shape[0], -1, -1) for token in named if token is not None]
    if vit.pos_embed is None:
        return torch.cat([*prefix, x], dim=1)
    own = 0 if vit.no_embed_class else vit.num_prefix_tokens
    grid = torch.unflatten(vit.pos_embed[:, own:].mT, 2, tuple(vit.patch_embed.grid_size))  # (1, C, h', w')
    positions = resize(grid, (height, width), align_corners=False).flatten(2).mT  # (1, h · w, C)
    if own:
        x = torch.cat([*prefix, x], dim=1) + torch.cat([vit.pos_embed[:, :own], positions], dim=1)
    else:
        x = torch.cat([*prefix, x + positions], dim=1)
    tokens: Tensor = vit.pos_drop(x)
    return tokens


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
            return super().forward(x)  # type: ignore[no-any-return]
        sizes, kernels = x.shape[-2:], self.weight.shape[-2:]
        pads, drops = [], []
        for size, kernel, stride, dilation in zip(sizes, kernels, self.stride, self.dilation, strict=True):
            missing = get_same_padding(size, kernel, stride, dilation)
            uneven = missing % 2
            pads.append(missing // 2 + stride * uneven)
            drops.append(uneven)
        outputs = F.conv2d(x, self.weight, self.bias, self.stride, pads, self.dilation, self.groups)
        if not any(drops):
            return outputs
        height, width = (-(-size // stride) for size, stride in zip(sizes, self.stride, strict=True))
        return outputs[..., drops[0] : drops[0] + height, drops[1] : drops[1] + width]


def lean(net: nn.Module) -> None:
    """Give the convolutions of a timm network their leaner form, in place."""
    for module in net.modules():
        if type(module) is Conv2dSame:
            module.__class__ = LeanConv2dSame
