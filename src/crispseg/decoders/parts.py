"""What decoders and their exchangeable parts are, and the registry of each kind of part.

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
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor, nn

from crispseg.config.registry import Registry, checked_options
from crispseg.config.settings import options_of


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
    """Whether the merge part is linear, see `is_linear`; the ranges of its levels are wide."""

    def __call__(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Features, finest first, `(N, channels[i], h_i, w_i)`, and images `(N, in_chans, H, W)` → `Decoded`."""

    def detail(self, images: Tensor) -> Tensor | None:
        """Run the spatial branch alone on `(N, in_chans, H, W)` images; None without a branch."""
        return None


class Context(NamedTuple):
    """The findings of a context part beyond its feature map, for one forward pass; every fuse part gets them."""

    descriptors: tuple[Tensor, ...] = ()
    """Sets of global semantic descriptors, `(N, C, K)` each, oldest first."""


ContextPart: TypeAlias = Callable[[int, int], nn.Module]
"""`part(in_channels, channels)` → a module; `forward(feature)`, the coarsest one, returns `(level, Context)`."""
FusePart: TypeAlias = Callable[[int, int], nn.Module]
"""`part(fine_channels, coarse_channels)` → a module; `forward(fine, coarse, context=None)` is as `fine`."""
MergePart: TypeAlias = Callable[[int, int, int], nn.Module]
"""`part(levels, channels, out_channels)` → a module; `forward(levels)`, finest first, is of the finest size."""
Levels: TypeAlias = Sequence[Tensor]

OWN = "; if it is your own, name its file in plugins"
HOME = "crispseg.models"  # where the papers' own parts are
contexts: Registry[ContextPart] = Registry("context part", OWN, HOME)
fuses: Registry[FusePart] = Registry("fuse part", OWN, HOME)
merges: Registry[MergePart] = Registry("merge part", OWN, HOME)


def is_linear(merge: MergePart) -> bool:
    """Whether a merge part takes the finest level alone; others were added to it neither normalised nor rectified."""
    return getattr(getattr(merge, "func", merge), "linear", False)  # a part with options is a partial one


def configured(parts: Registry[Any], name: str, options: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """Return the part of that name with its `options`, values of its keyword-only arguments.

    A model's arguments for all parts are `given`, such as `align_corners`; a part takes those that its constructor has.

    Raises:
        CrispsegError: there is no such part, or it has no such option.
    """
    part = parts[name]
    taken = {key: value for key, value in given.items() if key in inspect.signature(part).parameters}
    taken |= checked_options(f"{parts.kind} '{name}'", options or {}, options_of(part))
    return partial(part, **taken) if taken else part
