"""Common arguments of model builders: the backbone's description, the frame's options and the choice of parts.

A builder's signature has the choices of its paper. `fitted` names those that suit other backbones and custom data; a
model takes them unless its backbone is one of the papers' or `design` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from crispseg.backbones import Backbone
from crispseg.config.registry import Registry
from crispseg.decoders import TopDown, UpsampleAdd, configured, contexts, fuse_steps, fuses, merges

Design = Literal["auto", "paper", "fitted"]
"""Source of unspecified options: the paper, what fits the backbone, or (auto) the paper on `PAPER_BACKBONES` only."""

PAPER_BACKBONES = frozenset(
    {
        *("resnet18", "resnet50", "resnet101", "resnet18_deep", "resnet50_deep", "resnet101_deep"),
        *("resnet18d", "resnet101c", "resnet50s", "resnet101s", "df1", "df2", "stdc1", "stdc2", "shufflenetv2_x1_0"),
        *("deit_tiny_distilled_patch16_224", "deit_base_distilled_patch16_384"),
    }
)
"""Backbones of the papers' tables."""


def is_paper(design: Design, backbone: str) -> bool:
    """Return whether unspecified options are the paper's."""
    return backbone in PAPER_BACKBONES if design == "auto" else design == "paper"


@dataclass(frozen=True)
class Frame:
    """Options of the frame around every network.

    Args:
        align_corners: align levels and logits with the image at corner pixels, as in the papers' code, instead of
            pixel centres. Images are then not padded to multiples of the coarsest stride, and points may leave a level.
        inference_scale: factor by which images are upscaled in eval mode, 1 to 4; each side becomes a multiple of the
            coarsest stride. Time and memory grow with the square.
        corner_parts: parts that align corner pixels in spite of `align_corners`; earlier versions saved such models.
    """

    align_corners: bool = True
    inference_scale: Annotated[float, Field(ge=1, le=4)] = 1.0
    corner_parts: list[str] = field(default_factory=list)

    def corners(self, part: str) -> bool:
        """Return whether a part aligns corner pixels."""
        return self.align_corners or part in self.corner_parts


@dataclass(frozen=True)
class PartChoice:
    """Exchangeable part of a decoder: its registered name, and its options by name."""

    name: str
    options: dict[str, Any] | None = None

    def of(self, parts: Registry[Any], frame: Frame) -> Any:
        """Return the part from its registry, with its options and the frame's alignment."""
        return configured(parts, self.name, self.options, align_corners=frame.corners(self.name))


def top_down(
    channels: Sequence[int],
    width: int,
    out_channels: int,
    frame: Frame,
    context: PartChoice,
    fuse: PartChoice,
    merge: PartChoice,
    fuse_levels: Sequence[int] | None = None,
) -> TopDown:
    """Build a `TopDown` decoder from the chosen parts; steps outside `fuse_levels` upsample and add."""
    add = partial(UpsampleAdd, align_corners=frame.align_corners)
    return TopDown(
        channels,
        width,
        out_channels,
        context=context.of(contexts, frame),
        fuses=fuse_steps(fuse.of(fuses, frame), fuse_levels, len(channels), add),
        merge=merge.of(merges, frame),
    )


@dataclass(frozen=True)
class BackboneSpec:
    """Description of a backbone to build; the model that builds it chooses the strides.

    Args:
        name, pretrained, in_chans: see `Backbone`.
        paper: whether unspecified options are the paper's.
    """

    name: str
    pretrained: bool | str | Path = False
    in_chans: int = 3
    paper: bool = True

    def build(self, **options: Any) -> Backbone:
        """Build the `Backbone` with further options."""
        return Backbone(self.name, pretrained=self.pretrained, in_chans=self.in_chans, **options)

    def width(self, given: int | None, paper: int, channels: Sequence[int]) -> int:
        """Return the given width of a decoder, or else the paper's, or one that fits the backbone's channels."""
        if given is not None:
            return given
        return paper if self.paper else min(paper, fitted_width(channels))


def fitted_width(channels: Sequence[int]) -> int:
    """Return a decoder's width for a backbone's channels, finest first: 64 if its finest feature is narrower than 64.

    Otherwise 128 if the deepest feature has up to 512 channels, else 256. A wider decoder would take most of the time
    on a light backbone.
    """
    if channels[0] < 64:
        return 64
    return 128 if channels[-1] <= 512 else 256
