"""timm's networks as feature pyramids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import timm
import torch

from crispseg.backbones.network import Pyramid, cannot_dilate, deepest
from crispseg.backbones.published import build_published
from crispseg.errors import CrispsegError

# Deep stem: three 3×3 convolutions 64-64-128 instead of the 7×7, as in the papers' code.
DEEP_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_deep": ("resnet18", {"stem_type": "deep", "stem_width": 64}),
    "resnet50_deep": ("resnet50s", {}),
    "resnet101_deep": ("resnet101s", {}),
}


_FITTING: set[tuple[Any, ...]] = set()
"""Networks of which `fits` holds: a saved model is built twice, first as shapes alone."""


def is_timm_name(name: str) -> bool:
    """Whether timm, or `DEEP_RESNETS`, has this network."""
    return name in DEEP_RESNETS or bool(timm.is_model(name))


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
