"""timm's vision transformers and their like: blocks of one resolution instead of a pyramid."""

from __future__ import annotations

from types import MethodType
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from crispseg.backbones.network import Pyramid
from crispseg.backbones.published import build_published
from crispseg.backbones.timm_networks import DEEP_RESNETS, fits
from crispseg.errors import CrispsegError
from crispseg.nn import resize


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
    try:
        net = build_published(name, name, published, in_chans=in_chans, dynamic_img_size=True, **options)
    except TypeError:  # it does not know the option
        raise _fixed_size(name) from None
    if isinstance(net.model, VisionTransformer):
        net.model._pos_embed = MethodType(_add_positions, net.model)
    divisor = strides[-1]
    if not all(fits(net, in_chans, height * divisor, width * divisor) for height, width in ((3, 5), (4, 2))):
        raise _fixed_size(name)
    config = net.model.pretrained_cfg
    channels = tuple(net.feature_info.channels())
    return Pyramid(net, net.model, (divisor,) * levels, channels, config["mean"], config["std"], divisor)


def _fixed_size(name: str) -> CrispsegError:
    return CrispsegError(
        f"backbone '{name}' works at fixed image sizes only; timm's ViTs and DeiTs work at any, and networks with a "
        "pyramid, such as 'vit_base_patch16_224' or 'resnet50'"
    )


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
