"""Sampling by gathered rows of channels, for runtimes whose `grid_sample` is slow, inexact or missing.

`gather_rows` rewrites every `grid_sample` of an exported graph as four gathered rows and their weighted sum. The sum is
a chain of products and additions, which runtimes compute in one pass. Its factors are the weight of the nearest pixel
and, for each axis, the ratio of the weights of the farther and the nearer pixels.

`with_row_sums` replaces the decoder of crisp before the export. If its operators were rewritten one by one, every level
would be transposed and stored in full; docs/appendix.md has the times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from crispseg.decoders import Decoded, Decoder, Sum, TopDown
from crispseg.models import SegmentationModel
from crispseg.models.sfnet import FlowAlignment
from crispseg.nn.rows import maps_of, rows_of

GROUP = 64
"""Channels that are gathered at a time, so that samples of a large map stay in cache."""
TINY = 1e-6
"""Smallest divisor."""
GRID_SAMPLERS = torch.ops.aten.grid_sampler.default, torch.ops.aten.grid_sampler_2d.default
NEAREST = 1  # mode of `aten.grid_sampler`; the other one in use is bilinear
ZEROS = 0  # its padding mode; the other one in use is the border


def gather_rows(program: ExportedProgram) -> ExportedProgram:
    """Rewrite every `grid_sample` of a graph as gathered rows."""
    if not any(node.target in GRID_SAMPLERS for node in program.graph.nodes):
        return program
    rewritten: ExportedProgram = program.run_decompositions(dict.fromkeys(GRID_SAMPLERS, sampled_rows))
    return rewritten


def sampled_rows(source: Tensor, grid: Tensor, mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """Sample `source` (N, C, h, w) at `grid` (N, H, W, 2) like `aten.grid_sampler`; nearest needs padding by border."""
    size, rows = source.shape[-2:], rows_of(source)
    if align_corners:
        x, y = ((points + 1) * ((side - 1) / 2) for points, side in zip(grid.unbind(3), reversed(size), strict=True))
    else:
        x, y = (((points + 1) * side - 1) / 2 for points, side in zip(grid.unbind(3), reversed(size), strict=True))
    # x and y are in pixels, (N, H, W) each
    if mode == NEAREST:
        sampled = rows.index_select(0, _index(x.round().long(), y.round().long(), size))
    else:
        corners = Corners.around(0, x, 0, y, size, pads_zeros=padding_mode == ZEROS)
        sampled = torch.cat([corners.sample(group) for group in groups_of(rows)], dim=1)
    return maps_of(sampled, grid.shape[:3])


def groups_of(rows: Tensor, dim: int = 1) -> list[Tensor]:
    """Split channels into groups."""
    return list(torch.split(rows, GROUP, dim))


class Corners(NamedTuple):
    """The four pixels around each of P points: indices of their rows `(P,)`, and factors `(P, 1)` of the sum."""

    far: Tensor
    """Pixel that is farther in both axes."""
    far_in_y: Tensor
    """Pixel that is farther in y and nearer in x."""
    far_in_x: Tensor
    near: Tensor
    ratio_x: Tensor
    ratio_y: Tensor
    weight: Tensor
    """Weight of the pixel that is nearer in both axes."""

    @classmethod
    def around(
        cls, left: Tensor | int, x: Tensor, top: Tensor | int, y: Tensor, size: Sequence[int], *, pads_zeros: bool
    ) -> Corners:
        """Return the corners of points (N, H, W) at pixels `left + x`, `top + y` of maps of this height and width.

        The first terms are whole numbers, so that the others may be small, and exact enough in bfloat16.
        """
        height, width = size
        x_near, x_far, x_weight, x_ratio = _neighbours(left, x, width, pads_zeros)
        y_near, y_far, y_weight, y_ratio = _neighbours(top, y, height, pads_zeros)
        pixels = (x_far, y_far), (x_near, y_far), (x_far, y_near), (x_near, y_near)
        rows = [_index(column, row, size) for column, row in pixels]
        return cls(*rows, *(factor.reshape(-1, 1) for factor in (x_ratio, y_ratio, x_weight * y_weight)))

    @classmethod
    def along(cls, flow: Tensor, size: Sequence[int]) -> Corners:
        """Return the corners of the points to which `warp_inside` moves the pixels of a flow (N, 2, H, W).

        The coarse level has this height and width.
        """
        (dx, dy), (height, width) = flow.unbind(1), flow.shape[-2:]
        columns, rows = (torch.arange(length, device=flow.device) for length in (width, height))
        left, x = _moved(columns, dx, width, size[1])
        top, y = _moved(rows[:, None], dy, height, size[0])
        return cls.around(left, x, top, y, size, pads_zeros=False)

    def sample(self, rows: Tensor) -> Tensor:
        """Sample rows (N · h · w, C) to (P, C)."""
        far, far_in_y, far_in_x, near = (rows.index_select(0, index) for index in self[:4])
        return ((far * self.ratio_x + far_in_y) * self.ratio_y + (far_in_x * self.ratio_x + near)) * self.weight


def _moved(index: Tensor, flow: Tensor, length: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the place of pixels in a level of `side` pixels, moved by the flow, as a whole number and the rest.

    Without a flow it is (index + 1 / 2) · side / length - 1 / 2.
    """
    position = (2 * index + 1) * side + length  # one pixel more is positive, and division truncates
    pixel = torch.div(position, 2 * length, rounding_mode="trunc")
    return pixel - 1, (flow * side + (position - pixel * 2 * length)) / (2 * length)


def _neighbours(first: Tensor | int, offset: Tensor, side: int, pads_zeros: bool) -> tuple[Tensor, ...]:
    """Return the nearer and the farther pixel of points on one axis, the nearer one's weight, and the ratio."""
    below = offset.floor()
    low = first + below.long()
    high, of_high = low + 1, offset - below
    of_low = 1 - of_high
    if pads_zeros:
        of_low = of_low * ((low >= 0) & (low < side))
        of_high = of_high * ((high >= 0) & (high < side))
    swapped, weight = of_high > of_low, torch.maximum(of_low, of_high)
    ratio = torch.minimum(of_low, of_high) / weight.clamp(min=TINY)
    return torch.where(swapped, high, low), torch.where(swapped, low, high), weight, ratio


def _index(x: Tensor, y: Tensor, size: Sequence[int]) -> Tensor:
    """Return the rows (N · H · W,) of pixels (N, H, W) of maps; pixels outside are moved to the edge."""
    height, width = size
    first = torch.arange(x.shape[0], device=x.device)[:, None, None] * (height * width)
    return (first + y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten()


# The decoder of crisp ------------------------------------------------------------------------------------------------


def with_row_sums(model: SegmentationModel) -> SegmentationModel:
    """Change a model, if it sums levels along flows like crisp, to decode and classify by rows; return it."""
    decoder = model.decoder
    if not isinstance(decoder, TopDown) or not isinstance(decoder.merge, Sum):
        return model
    if all(isinstance(fuse, FlowAlignment) and fuse.composed for fuse in decoder.fuses):
        model.decoder = RowSum(decoder, model.classifier)
        model.classifier = nn.Identity()  # type: ignore[assignment]
    return model


class RowSum(nn.Module, Decoder):
    """Decoder and classifier of crisp in eval mode, computed from rows of few channels at a time.

    Rows that are gathered thus stay in cache, and a fine level of all channels is never stored. Consecutive linear
    layers are multiplied into one.

    Args:
        decoder: `TopDown` with a sum of levels along flows at pixel centres.
        classifier: 1×1 convolution of the sum.
    """

    def __init__(self, decoder: Any, classifier: Any) -> None:
        super().__init__()
        self.context, self.laterals, self.fuses = decoder.context, decoder.laterals, decoder.fuses
        self.norm, self.classifier = decoder.merge.norm, classifier
        self.out_channels = classifier.out_channels

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Return the logits of the finest level instead of a map to classify."""
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        shift = self.norm.bias - self.norm.running_mean * scale
        *fine, coarsest = features
        level, _ = self.context(coarsest)
        groups, shape = groups_of(rows_of(level)), (level.shape[0], *level.shape[2:])
        for feature, lateral, fuse in reversed(list(zip(fine, self.laterals, self.fuses, strict=True))):
            projection, bias = lateral.weight.flatten(1), torch.zeros_like(shift)
            of_coarse, of_fine = fuse.products()
            coarse = maps_of(multiplied(groups, of_coarse), shape)
            flow = fuse.flow_of(F.conv2d(feature, (of_fine @ projection)[..., None, None]), coarse)
            if feature is fine[0]:  # the sum is normalised: the smaller, coarse level is scaled, and not the sum
                groups = [group * factor for group, factor in zip(groups, groups_of(scale, 0), strict=True)]
                projection, bias = projection * scale[:, None], shift
            corners, rows = Corners.along(flow, shape[1:]), rows_of(feature)
            groups = [
                corners.sample(group) + F.linear(rows, weight, offset)
                for group, weight, offset in zip(groups, groups_of(projection, 0), groups_of(bias, 0), strict=True)
            ]
            shape = (feature.shape[0], *feature.shape[2:])
        logits = multiplied([F.relu(group) for group in groups], self.classifier.weight.flatten(1))
        return Decoded(maps_of(logits + self.classifier.bias, shape))


def multiplied(groups: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Multiply rows of channels, given in groups (R, ·), by a weight (O, C) to (R, O)."""
    first, *others = (F.linear(group, part) for group, part in zip(groups, groups_of(weight), strict=True))
    return sum(others, start=first)
