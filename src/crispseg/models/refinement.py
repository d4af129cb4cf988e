"""Boundary refinement: a pixel on a boundary takes the logits of a pixel further inside its region.

Zhu et al., *A Unified Efficient Pyramid Transformer for Semantic Segmentation* (UN-EPT), ICCVW 2021, §3.2, after Yuan
et al., *SegFix: Model-Agnostic Boundary Refinement for Segmentation*, ECCV 2020. `crispseg.data.boundary_targets` makes
the targets of its training.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn import Tap, conv_bn_relu, resize

Refinement = Literal["auto", "boundary"]
"""Values of `create_model`'s `refine` other than None."""

REFINED_BY_DEFAULT = {"unept": 1}
"""Steps of the refinement that belongs to a model by itself."""

REFINE_OPTIONS = ("refine", "refine_steps", "refine_path")
"""Options of `create_model` about refinement; a model that refines is saved with all of them."""

STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""x (to the right) and y (downwards) of the step of each direction; direction k points k · 45° from the x axis."""

DIRECTIONS = len(STEPS)

WIDTH = 256  # of the spatial branch and of the heads
STEPS_TAKEN = 2
RefinePath = Literal["chained", "straight"]
"""A single unit step often ends on the boundary still. SegFix (§3.2) names two remedies: to double the step, straight,
which is what it uses, or to go on in the direction of the pixel where it ends, chained. The second one stays inside of
what is only a few pixels wide."""


class SpatialBranch(nn.Sequential):
    """Three 3×3 convolutions of stride 2 with batch norm and ReLU: images → `(N, width, ⌈H / 8⌉, ⌈W / 8⌉)`.

    The first two have a quarter and half of the width: 64 and 128 for 256, as released; the paper does not say.
    """

    def __init__(self, in_chans: int, width: int) -> None:
        channels = (in_chans, width // 4, width // 2, width)
        super().__init__(*(conv_bn_relu(*pair, 3, stride=2) for pair in pairwise(channels)))


class BoundaryRefinement(nn.Module):
    """Predicts boundary pixels and the direction to the inside from the image, and shifts logits by them.

    Args:
        in_chans: channels of the images.
        detail_channels: channels of the decoder's own spatial branch, whose feature map is given to `maps`; by default
            the part has a spatial branch of its own, of 256 channels.
        steps: from pixel to neighbouring pixel, that make an offset.
        path: chained steps each go in the direction predicted where they start, and end where there is no boundary;
            straight ones all go in that of the first.
    """

    unit_steps: Tensor

    def __init__(
        self,
        in_chans: int = 3,
        *,
        detail_channels: int | None = None,
        steps: int = STEPS_TAKEN,
        path: RefinePath = "chained",
    ) -> None:
        super().__init__()
        self.branch = SpatialBranch(in_chans, WIDTH) if detail_channels is None else None
        self.boundary_head, self.direction_head = (
            nn.Sequential(*conv_bn_relu(detail_channels or WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, maps, 1))
            for maps in (1, DIRECTIONS)
        )
        self.boundary, self.direction = Tap(), Tap()
        self.steps, self.path = steps, path
        self.register_buffer("unit_steps", torch.tensor(STEPS, dtype=torch.float32), persistent=False)  # (8, 2)

    def maps(self, images: Tensor, detail: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the heads; their maps are at the images' size.

        Args:
            images: `(N, in_chans, H, W)`, normalised.
            detail: `(N, detail_channels, h, w)`, of a model that has a spatial branch.

        Returns:
            The logit of being a boundary pixel `(N, 1, H, W)`, and one for each direction of `STEPS` `(N, 8, H, W)`.
        """
        if self.branch is not None:
            detail = self.branch(images)  # (N, 256, ⌈H / 8⌉, ⌈W / 8⌉)
        assert detail is not None, "a refinement without a spatial branch needs the model's feature map"
        size = images.shape[-2:]
        boundary = self.boundary(resize(self.boundary_head(detail), size, align_corners=True))
        direction = self.direction(resize(self.direction_head(detail), size, align_corners=True))
        return boundary, direction

    def offsets(self, boundary: Tensor, direction: Tensor) -> Tensor:
        """Two `maps` → from where each pixel takes its logits, `(N, 2, H, W)` float32, x and y in pixels.

        It is 0 unless the probability of a boundary is above one half.
        """
        steps = self.unit_steps[direction.argmax(1)].permute(0, 3, 1, 2)  # (N, 2, H, W)
        steps = torch.where(boundary > 0, steps, torch.zeros_like(steps))
        if self.path == "straight":
            return self.steps * steps
        offsets = steps
        for _ in range(self.steps - 1):
            offsets = steps + shift(offsets, steps)  # one step, and then what is left from where it ends
        return offsets

    def forward(self, logits: Tensor, images: Tensor, detail: Tensor | None = None) -> Tensor:
        """Logits `(N, C, H, W)` and images of their size → refined logits."""
        return shift(logits, self.offsets(*self.maps(images, detail)))


def shift(values: Tensor, offsets: Tensor) -> Tensor:
    """`values(p + offset(p))` for `(N, C, H, W)` values and `(N, 2, H, W)` whole offsets, x and y in pixels.

    Sampled nearest, so that logits move from pixel to pixel and do not mix; their gradient moves with them, the offsets
    have none. Outside counts as the nearest pixel of the edge. Where the offset is 0, values stay exactly as they are.
    Coordinates are float32 always.
    """
    height, width = values.shape[-2:]
    # Not linspace: the exporters would build the size of their example image into it.
    xs, ys = (torch.arange(size, device=values.device, dtype=torch.float32) for size in (width, height))
    dx, dy = offsets.float().unbind(1)  # (N, H, W) each
    x = (xs + dx) * (2 / max(width - 1, 1)) - 1
    y = (ys[:, None] + dy) * (2 / max(height - 1, 1)) - 1
    moved = F.grid_sample(
        values.float(), torch.stack([x, y], dim=-1), mode="nearest", padding_mode="border", align_corners=True
    )
    here = (offsets == 0).all(1, keepdim=True)  # (N, 1, H, W)
    return torch.where(here, values, moved.to(values.dtype))
