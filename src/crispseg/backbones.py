"""Backbones: any timm network with a feature pyramid, and the few the papers use that timm does not name."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from crispseg.errors import CrispsegError, did_you_mean

# Deep stem: three 3×3 convolutions 64-64-128 in place of the 7×7, as in the papers' code.
DEEP_RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18_deep": ("resnet18", {"stem_type": "deep", "stem_width": 64}),
    "resnet50_deep": ("resnet50s", {}),
    "resnet101_deep": ("resnet101s", {}),
}

PYRAMID_STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """A timm network as a feature pyramid.

    Args:
        name: any timm model name with a feature pyramid, or a key of `DEEP_RESNETS`.
        pretrained: `False`; `True` for timm's published weights; or a path to a weight file (`.safetensors` or a plain
            state dict).
        in_chans: channels of the image.
        strides: of the features to return, finest first.

    Attributes:
        channels, strides: of the returned features, finest first.
        in_chans: channels of the image.
        mean, std: of the images the backbone expects, one value per input channel, images in 0..1.

    Raises:
        CrispsegError: an unknown name; no feature at one of the strides; weights that do not exist or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | Path = False,
        in_chans: int = 3,
        strides: Sequence[int] = PYRAMID_STRIDES,
    ) -> None:
        super().__init__()
        self.net, self._divisor = _build_for_any_size(name, pretrained is True, in_chans, strides)
        info = self.net.feature_info
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.channels: tuple[int, ...] = tuple(info.channels())
        config = self.net.model.pretrained_cfg
        self.mean = _per_channel(config["mean"], in_chans)
        self.std = _per_channel(config["std"], in_chans)
        self.in_chans = in_chans
        self.frozen = False
        if not isinstance(pretrained, bool):
            _load_weights(self.net.model, name, Path(pretrained))

    def forward(self, images: Tensor) -> list[Tensor]:
        """`(N, in_chans, H, W)` → one feature per stride, `(N, channels[i], ⌈H / strides[i]⌉, ⌈W / strides[i]⌉)`.

        Raises:
            CrispsegError: in training, a batch norm of the backbone sees a single value per channel.
        """
        height, width = images.shape[-2:]
        if self._divisor > 1:
            images = F.pad(images, (0, -width % self._divisor, 0, -height % self._divisor))
        try:
            features: list[Tensor] = self.net(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise CrispsegError(
                f"training on a batch of {images.shape[0]} image(s) of {height}×{width} leaves a batch norm of the "
                "backbone with one value per channel; use a larger batch, a larger crop, or freeze the backbone"
            ) from None
        if self._divisor > 1:
            features = [
                feature[..., : -(-height // stride), : -(-width // stride)]
                for feature, stride in zip(features, self.strides, strict=True)
            ]
        return features

    def freeze(self) -> None:
        """Fix all weights and batch-norm statistics."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def dilate(self) -> None:
        """Dilate the second convolution of each residual block, by 2 at stride 16 and 4 at stride 32; strides stay.

        SFNet's released code does so in its ResNets.

        Raises:
            CrispsegError: the network is no ResNet.
        """
        for stage, dilation in (("layer3", 2), ("layer4", 4)):
            convs: list[Any] = [getattr(block, "conv2", None) for block in getattr(self.net.model, stage, ())]
            if not convs or not all(isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) for conv in convs):
                raise CrispsegError("released_dilation is for ResNets, such as 'resnet18_deep'; leave it out")
            for conv in convs:
                conv.dilation = conv.padding = (dilation, dilation)

    def train(self, mode: bool = True) -> Backbone:
        return super().train(mode and not self.frozen)


def _build_for_any_size(name: str, pretrained: bool, in_chans: int, strides: Sequence[int]) -> tuple[Any, int]:
    """The network, and what its input must be padded to a multiple of so that features have size ⌈H / stride⌉."""
    for options in (
        {},
        {"strict_img_size": False},
    ):  # the latter frees Swin of its training size; others do not know it
        try:
            net = _build(name, pretrained, in_chans, strides, options)
        except TypeError:
            if options:
                break
            raise CrispsegError(f"backbone '{name}' offers no features; choose one such as 'resnet18'") from None
        for divisor in (1, strides[-1]):
            if all(_fits(net, in_chans, height * divisor, width * divisor) for height, width in ((33, 57), (48, 35))):
                return net, divisor
    raise CrispsegError(
        f"backbone '{name}' works at fixed image sizes only; a ResNet, ConvNeXt, Swin or EfficientNet works at any"
    )


def _fits(net: Any, in_chans: int, height: int, width: int) -> bool:
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


def _build(name: str, pretrained: bool, in_chans: int, strides: Sequence[int], extra: dict[str, Any]) -> Any:
    timm_name, options = DEEP_RESNETS.get(name, (name, {}))
    if not isinstance(name, str) or not timm.is_model(timm_name):
        known = [*DEEP_RESNETS, *timm.list_models()]
        raise CrispsegError(
            f"unknown backbone '{name}'{did_you_mean(str(name), known)} (any timm model with a feature pyramid works)"
        )
    if options and pretrained:
        raise CrispsegError(
            f"there are no published weights for '{name}'; give pretrained a path, or use '{timm_name}'"
        )
    options = {"features_only": True, "feature_cls": "getter", **options, **extra}
    try:
        found = list(timm.create_model(timm_name, **options).feature_info.reduction())
    except (RuntimeError, AttributeError, AssertionError):
        raise CrispsegError(f"backbone '{name}' offers no features at all; choose one such as 'resnet18'") from None
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise CrispsegError(
            f"backbone '{name}' has features at strides {sorted(set(found))}, but {list(strides)} are needed; "
            "one with a feature pyramid works, such as 'resnet18', 'convnext_tiny' or 'tf_efficientnet_lite0'"
        )
    last_of_stride = {stride: index for index, stride in enumerate(found)}
    options["out_indices"] = tuple(last_of_stride[stride] for stride in strides)
    if not pretrained:
        return timm.create_model(timm_name, in_chans=in_chans, **options)
    try:
        return timm.create_model(timm_name, in_chans=in_chans, pretrained=True, **options)
    except Exception as error:
        # timm, the hub and the network raise many types here; the last line of any of them says what failed.
        reason = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
        raise CrispsegError(
            f"cannot get timm's weights for backbone '{name}' ({reason}); give pretrained a path to a weight file"
        ) from error


def _load_weights(net: nn.Module, name: str, path: Path) -> None:
    """Load a whole classification network's weights into its pruned feature part; everything in `net` must be there."""
    weights = read_state_dict(path)
    own = net.state_dict()
    for key, value in own.items():
        given = weights.get(key)
        if given is not None and given.ndim == 4 and given.shape != value.shape and given.shape[1] == 3:
            weights[key] = adapt_input_conv(value.shape[1], given)  # the stem, where images are not RGB
    wrong = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    wrong += [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if wrong:
        raise CrispsegError(
            f"{path} does not fit backbone '{name}': {len(wrong)} of {len(own)} tensors missing or of another shape, "
            f"first {', '.join(wrong[:3])}; give the weights of '{name}' itself"
        )
    net.load_state_dict({key: value for key, value in weights.items() if key in own}, strict=False)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors from a `.safetensors` file or a PyTorch file, which is never unpickled without restriction.

    A dict nested under `state_dict` or `model` and a `module.` prefix are unwrapped.

    Raises:
        CrispsegError: the file is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CrispsegError(f"weight file {path} does not exist; give the path of a .safetensors or .pth file")
    try:
        weights: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # on damaged files PyTorch's readers raise almost anything
        if isinstance(error, pickle.UnpicklingError) and path.stat().st_size:
            raise CrispsegError(
                f"weight file {path} holds more than tensors or is damaged; save its state dict alone"
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CrispsegError(f"weight file {path} cannot be read ({reason}); it may be damaged") from None
    for key in ("state_dict", "model"):
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    ):
        raise CrispsegError(f"weight file {path} holds no state dict; save the network's state_dict()")
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _per_channel(values: Sequence[float], in_chans: int) -> tuple[float, ...]:
    """RGB statistics for any number of channels: their mean for one, repeated for more than three."""
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(in_chans))
