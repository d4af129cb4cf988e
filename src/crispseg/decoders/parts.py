"""The protocols of decoders and of their exchangeable parts, and the registry of each kind of part.

A new part is one class with one registration line above it:

    @fuses.register("mine")
    class MyFuse(nn.Module):
        def __init__(self, fine_channels: int, coarse_channels: int) -> None: ...
        def forward(self, fine, coarse, context=None): ...

Keyword-only arguments of a part are its options: `create_model(..., fuse="mine", fuse_options={...})`; so it is with
`context_options` and `merge_options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from torch import Tensor, nn

from crispseg.config.registry import Registry, checked_options, keyword_options

P = TypeVar("P", bound=Callable[..., nn.Module])


class Decoded(NamedTuple):
    """The result of a decoder."""

    feature: Tensor
    """The map to classify, `(N, out_channels, H, W)`, where H and W are those of the finest level."""
    levels: tuple[Tensor, ...] = ()
    """Fused levels, finest first, for deep supervision: `(N, auxiliary_channels[i], h, w)` each."""
    detail: Tensor | None = None
    """The map of the decoder's own spatial branch, `(N, detail_channels, h, w)`; most have none."""


class Decoder(Protocol):
    """Turns the backbone's features and the images themselves into one map to classify."""

    out_channels: int
    """Channels of the map to classify."""
    auxiliary_channels: tuple[int, ...]
    """Channels of each level for deep supervision."""
    detail_channels: int | None = None
    """Channels of `detail`, where the decoder has a spatial branch."""
    linear: bool = False
    """Whether levels are summed as they are, neither normalised nor rectified; their ranges are wide."""

    def __call__(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Features, finest first, `(N, channels[i], h_i, w_i)`, and images `(N, in_chans, H, W)` → `Decoded`."""

    def detail(self, images: Tensor) -> Tensor | None:
        """Run the spatial branch alone on `(N, in_chans, H, W)` images; None without a branch."""
        return None


class Context(NamedTuple):
    """The findings of a context part beyond its feature map, for one forward pass; every fuse part gets them."""

    descriptors: tuple[Tensor, ...] = ()
    """Sets of global semantic descriptors, `(N, C, K)` each, oldest first."""


class ContextPart(Protocol):
    """Turns the coarsest feature `(N, in_channels, h, w)` into the first level `(N, channels, h, w)`."""

    def __call__(self, in_channels: int, channels: int) -> nn.Module:
        """Build a module whose `forward(feature)` returns `(level, Context)`."""


class FusePart(Protocol):
    """Carries meaning from a coarse level to the next finer one."""

    def __call__(self, fine_channels: int, coarse_channels: int) -> nn.Module:
        """Build a module whose `forward(fine, coarse, context=None)` returns a tensor of `fine`'s size and width."""


class MergePart(Protocol):
    """Makes one feature map out of all levels."""

    def __call__(self, levels: int, channels: int, out_channels: int) -> nn.Module:
        """Build a module: `forward(levels)`, finest first, returns `(N, out_channels, H, W)` at the finest size."""


def is_linear(merge: MergePart) -> bool:
    """Whether a merge part takes the finest level alone, to which others were added as they were projected."""
    return getattr(getattr(merge, "func", merge), "linear", False)  # a part with options is a partial one


def configured(parts: Registry[P], name: str, options: Mapping[str, Any] | None = None, **given: Any) -> P:
    """Return the part of that name, with its options.

    Args:
        parts: the registry.
        name: of the part.
        options: values of its keyword-only arguments.
        given: what a model gives to those of its parts whose constructor takes it, such as `align_corners`.

    Raises:
        CrispsegError: there is no such part, or it has no such option.
    """
    part = parts[name]
    taken = {key: value for key, value in given.items() if key in inspect.signature(part).parameters}
    if options:
        taken |= checked_options(f"{parts.kind} '{name}'", options, keyword_options(part))
    return cast(P, partial(part, **taken)) if taken else part


OWN = "; if it is your own, name its file in plugins"
HOME = "crispseg.models"  # where the papers' own parts are
contexts: Registry[ContextPart] = Registry("context part", OWN, HOME)
fuses: Registry[FusePart] = Registry("fuse part", OWN, HOME)
merges: Registry[MergePart] = Registry("merge part", OWN, HOME)

Levels = Sequence[Tensor]
