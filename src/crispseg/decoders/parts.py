"""The exchangeable parts of a top-down decoder: what each kind is given and must return, and where it is registered.

A new part is one class with one registration line above it:

    @fuses.register("mine")
    class MyFuse(nn.Module):
        def __init__(self, fine_channels: int, coarse_channels: int) -> None: ...
        def forward(self, fine, coarse, context=None): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from crispseg.registry import Registry


class Context(NamedTuple):
    """What a context part found beyond its feature map, for one forward pass; handed to every fuse part."""

    descriptors: tuple[Tensor, ...] = ()
    """Sets of global semantic descriptors, `(N, C, K)` each, oldest first."""


class ContextPart(Protocol):
    """Turns the coarsest feature `(N, in_channels, h, w)` into the first level `(N, channels, h, w)`."""

    def __call__(self, in_channels: int, channels: int) -> nn.Module:
        """Build a module whose `forward(feature)` returns `(level, Context)`."""


class GatherPart(Protocol):
    """Gathers descriptors of a level for the fuse parts of all finer ones."""

    def __call__(self, channels: int) -> nn.Module:
        """Build a module whose `forward(level)`, `(N, C, h, w)`, returns one set of descriptors, `(N, C, K)`."""


class FusePart(Protocol):
    """Carries meaning from a coarse level to the next finer one."""

    def __call__(self, fine_channels: int, coarse_channels: int) -> nn.Module:
        """Build a module whose `forward(fine, coarse, context=None)` returns a tensor of `fine`'s size and width."""


class MergePart(Protocol):
    """Makes one feature map out of all levels."""

    def __call__(self, levels: int, channels: int, out_channels: int) -> nn.Module:
        """Build a module: `forward(levels)`, finest first, returns `(N, out_channels, H, W)` at the finest size."""


OWN = "; if it is your own, name its file with --plugins"
contexts: Registry[ContextPart] = Registry("context part", OWN)
fuses: Registry[FusePart] = Registry("fuse part", OWN)
merges: Registry[MergePart] = Registry("merge part", OWN)

Levels = Sequence[Tensor]
