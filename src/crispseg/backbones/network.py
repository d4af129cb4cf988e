"""The features of a backbone network, and the choice of those with given strides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from crispseg.errors import CrispsegError


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
