"""Boundary refinement: a boundary pixel takes the logits of a pixel further inside its region.

Zhu et al., *A Unified Efficient Pyramid Transformer for Semantic Segmentation* (UN-EPT), ICCVW 2021, §3.2. It follows
Yuan et al., *SegFix: Model-Agnostic Boundary Refinement for Segmentation*, ECCV 2020. The training targets are from
`crispseg.data.boundary_targets`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import CrispsegError
from crispseg.nn import Tap, conv_bn_relu, resize, resize_to_images

Refinement = Literal["auto", "boundary"]
"""Values of `refine` in `create_model`, except None."""

REFINED_BY_DEFAULT = ("unept",)
"""Models that `refine="auto"` refines."""

REFINE_OPTIONS = ("refine", "refine_steps", "refine_path")
"""Refinement options of `create_model`; a refining model saves all of them."""

STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""Step of each direction, x to the right and y downwards; direction k is at k · 45° from the x axis."""

DIRECTIONS = len(STEPS)

WIDTH = 256  # channels of the spatial branch and of the heads
RefinePath = Literal["chained", "straight"]
MAX_STEPS = 32  # steps of boundary refinement
STEPS_TAKEN = 2
"""Default number of steps. A single step often still ends on the boundary. SegFix (§3.2) names two remedies:
straight doubles the step; chained follows the direction at the pixel where the step ends. Chained steps, the default,
stay inside regions that are only a few pixels wide."""


def checked_refinement(model: str, refine: Refinement | None, steps: int | None) -> bool:
    """Return whether a model of this name refines; wrong steps raise a `CrispsegError`."""
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise CrispsegError(f"refine_steps is {steps}; give a whole number from 1 to {MAX_STEPS}")
    refines = model in REFINED_BY_DEFAULT if refine == "auto" else refine is not None
    if not refines and steps not in (None, STEPS_TAKEN):
        raise CrispsegError(f"refine_steps is {steps}, but the model has no refinement; also give refine boundary")
    return refines


class SpatialBranch(nn.Sequential):
    """Three 3×3 convolutions of stride 2 with batch norm and ReLU; the output is `(N, width, ⌈H / 8⌉, ⌈W / 8⌉)`.

    The first two have a quarter and half of the width, as in the released code; the paper does not specify it.
    """

    stride = 8

    def __init__(self, in_chans: int, width: int) -> None:
        channels = (in_chans, width // 4, width // 2, width)
        super().__init__(*(conv_bn_relu(*pair, 3, stride=2) for pair in pairwise(channels)))


class BoundaryRefinement(nn.Module):
    """Predict boundary pixels and their inward direction from the image, and shift logits accordingly.

    Args:
        in_chans: channels of the images.
        detail_channels: channels of the decoder's spatial branch, if its feature map is passed to `maps`. By default
            the refinement has its own spatial branch of 256 channels.
        steps: number of steps between neighbouring pixels that form an offset.
        path: chained steps follow the direction predicted where they start, and end outside the boundary; straight
            steps all follow the first direction.
        align_corners: align the maps with the image at corner pixels, or at pixel centres.
    """

    unit_steps: Tensor

    def __init__(
        self,
        in_chans: int = 3,
        *,
        detail_channels: int | None = None,
        steps: int = STEPS_TAKEN,
        path: RefinePath = "chained",
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.branch = SpatialBranch(in_chans, WIDTH) if detail_channels is None else None
        self.boundary_head, self.direction_head = (
            nn.Sequential(*conv_bn_relu(detail_channels or WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, maps, 1))
            for maps in (1, DIRECTIONS)
        )
        self.boundary, self.direction = Tap(), Tap()
        self.steps, self.path, self.align_corners = steps, path, align_corners
        self.register_buffer("unit_steps", torch.tensor(STEPS, dtype=torch.float32), persistent=False)  # (8, 2)

    def maps(self, images: Tensor, detail: Tensor | None = None, *, upscaled: bool = False) -> tuple[Tensor, Tensor]:
        """Run the heads; their maps are at the images' size.

        Args:
            images: normalised images `(N, in_chans, H, W)`.
            detail: feature map `(N, detail_channels, h, w)` of a model with a spatial branch.
            upscaled: whether it is the map of upscaled images.

        Returns:
            Boundary logits `(N, 1, H, W)`, and logits of the directions in `STEPS`, `(N, 8, H, W)`.
        """
        if self.branch is not None:
            detail = self.branch(images)  # (N, 256, ⌈H / 8⌉, ⌈W / 8⌉)
        assert detail is not None, "a refinement without a spatial branch needs the model's feature map"
        size = images.shape[-2:]
        maps = self.boundary_head(detail), self.direction_head(detail)
        if self.align_corners or (upscaled and self.branch is None):
            boundary, direction = (resize(x, size, align_corners=self.align_corners) for x in maps)
        else:
            boundary, direction = (resize_to_images(x, size, SpatialBranch.stride) for x in maps)
        return self.boundary(boundary), self.direction(direction)

    def offsets(self, boundary: Tensor, direction: Tensor) -> Tensor:
        """Compute the offset at which each pixel reads its logits, `(N, 2, H, W)` float32, x and y in pixels.

        The arguments are results of `maps`. It is 0 unless the boundary probability is above one half.
        """
        steps = self.unit_steps[direction.argmax(1)].permute(0, 3, 1, 2)  # (N, 2, H, W)
        steps = torch.where(boundary > 0, steps, torch.zeros_like(steps))
        if self.path == "straight":
            return self.steps * steps
        offsets = steps
        for _ in range(self.steps - 1):
            offsets = steps + shift(offsets, steps)  # one step, then the remaining offset at its end
        return offsets


def shift(values: Tensor, offsets: Tensor) -> Tensor:
    """Return `values(p + offset(p))` for values `(N, C, H, W)` and integer offsets `(N, 2, H, W)`, x and y in pixels.

    Nearest-neighbour sampling moves logits between pixels without mixing them. Their gradient moves with them; offsets
    have no gradient. Points outside read the nearest edge pixel. Values with offset 0 stay exactly unchanged.
    Coordinates are always float32.
    """
    height, width = values.shape[-2:]
    # Not linspace: exporters would make the size of their example image a constant.
    xs, ys = (torch.arange(size, device=values.device, dtype=torch.float32) for size in (width, height))
    dx, dy = offsets.float().unbind(1)  # (N, H, W) each
    x = (xs + dx) * (2 / max(width - 1, 1)) - 1
    y = (ys[:, None] + dy) * (2 / max(height - 1, 1)) - 1
    moved = F.grid_sample(
        values.float(), torch.stack([x, y], dim=-1), mode="nearest", padding_mode="border", align_corners=True
    )
    unmoved = (offsets == 0).all(1, keepdim=True)  # (N, 1, H, W)
    return torch.where(unmoved, values, moved.to(values.dtype))
