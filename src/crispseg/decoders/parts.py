"""Interfaces of decoders and of their exchangeable parts, and the registry of each kind of part.

A new part is one class with one registration line above it:

    @fuses.register("mine")
    class MyFuse(nn.Module):
        def __init__(self, fine_channels: int, coarse_channels: int) -> None: ...
        def forward(self, fine, coarse, context=None): ...

A part whose output at a pixel depends on the whole image has the attribute `pools_globally`, and one whose output
depends on the pixel's position in the image `has_positions`. Keyword-only arguments of a part are its options:
`create_model(..., fuse="mine", fuse_options={...})`. Other kinds of parts use `context_options` and `merge_options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

from crispseg.config.registry import Registry, checked_options
from crispseg.config.settings import options_of


class Decoded(NamedTuple):
    """Result of a decoder."""

    feature: Tensor
    """Map to classify, `(N, out_channels, H, W)`, with H and W of the finest level."""
    levels: tuple[Tensor, ...] = ()
    """Fused levels, finest first, for deep supervision: `(N, auxiliary_channels[i], h, w)` each."""
    detail: Tensor | None = None
    """Map of the decoder's own spatial branch, `(N, detail_channels, h, w)`; most decoders have none."""


class Decoder(Protocol):
    """Interface of decoders, which turn the backbone's features and the images into one map to classify."""

    out_channels: int
    """Channels of the map to classify."""
    auxiliary_channels: tuple[int, ...] = ()
    """Channels of each level for deep supervision."""
    detail_channels: int | None = None
    """Channels of `detail`, if the decoder has a spatial branch."""
    stride: int | None = None
    """Stride of the map to classify; None for that of the finest feature."""
    linear: bool = False
    """Whether the merge part is linear (see `is_linear`); the ranges of its levels are wide."""

    def __call__(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode features, finest first, `(N, channels[i], h_i, w_i)`, and images `(N, in_chans, H, W)`."""

    def detail(self, images: Tensor) -> Tensor | None:
        """Run only the spatial branch on `(N, in_chans, H, W)` images; None without a branch."""
        return None


class Context(NamedTuple):
    """Further outputs of a context part in one forward pass; every fuse part receives them."""

    descriptors: tuple[Tensor, ...] = ()
    """Sets of global semantic descriptors, `(N, C, K)` each, oldest first."""


ContextPart: TypeAlias = Callable[[int, int], nn.Module]
"""`part(in_channels, channels)` builds a module; `forward(feature)`, the coarsest, returns `(level, Context)`."""
FusePart: TypeAlias = Callable[[int, int], nn.Module]
"""`part(fine_channels, coarse_channels)` builds a module; `forward(fine, coarse, context=None)` is shaped as `fine`."""
MergePart: TypeAlias = Callable[[int, int, int], nn.Module]
"""`part(levels, channels, out_channels)` builds a module; `forward(levels)`, finest first, has the finest size."""
Levels: TypeAlias = Sequence[Tensor]

OWN = "; for a custom part, give its file in plugins"
HOME = "crispseg.models"  # contains the papers' own parts
contexts: Registry[ContextPart] = Registry("context part", OWN, HOME)
fuses: Registry[FusePart] = Registry("fuse part", OWN, HOME)
merges: Registry[MergePart] = Registry("merge part", OWN, HOME)


Entry = TypeVar("Entry", bound=Callable[..., Any])


def fitted(**options: Any) -> Callable[[Entry], Entry]:
    """Return a decorator that names the options of a builder or part for backbones outside the papers' tables."""

    def mark(entry: Entry) -> Entry:
        entry.fitted = options  # type: ignore[attr-defined]
        return entry

    return mark


def is_linear(merge: MergePart) -> bool:
    """Return whether a merge part uses only the finest level, the sum of levels without normalisation and ReLU."""
    return getattr(getattr(merge, "func", merge), "linear", False)  # a part with options is a `partial`


def configured(parts: Registry[Any], name: str, options: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """Return the named part with its `options`, the values of its keyword-only arguments.

    `given` are a model's arguments for all parts, such as `align_corners`; a part gets those that its constructor has.
    An unknown part or option raises a `CrispsegError`.
    """
    part = parts[name]
    taken = {key: value for key, value in given.items() if key in inspect.signature(part).parameters}
    taken |= checked_options(f"{parts.kind} '{name}'", options or {}, options_of(part))
    return partial(part, **taken) if taken else part
