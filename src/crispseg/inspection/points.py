"""Where the pixels of a level look: positions in the image, and weights, of the points that each of them samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.inspection.activations import Inspection
from crispseg.inspection.flow import pixel_pitch
from crispseg.nn import pixel_centres


@dataclass(frozen=True, eq=False)
class SampledPoints:
    """The points that each pixel of a level samples.

    Positions are in pixels of the image, (0, 0) the centre of its first one; they may lie outside.

    Args:
        part: path in the model.
        title: such as "F5 → F4".
        xs, ys: where the pixels of the level are in the image, `(w,)` and `(h,)`.
        xy: `(h, w, G, N, 2)` float32, x and y of the N points in each of G groups.
        weights: `(h, w, G, N)` float32. DDSM: affinity × modulation, in sum at most 1; attention: 1 in sum over the
            points of all levels for each head; deformable convolution: all 1 / 9, as it weighs each channel otherwise.
        groups: names, such as "head 1, level 2".
    """

    part: str
    title: str
    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    xy: NDArray[np.float32]
    weights: NDArray[np.float32]
    groups: tuple[str, ...] = ("",)

    def nearest(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the level's pixel that is nearest to a position in the image."""
        return int(np.abs(self.ys - y).argmin()), int(np.abs(self.xs - x).argmin())

    def at(self, x: float, y: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Positions `(G, N, 2)` and weights `(G, N)` of the points that this pixel samples."""
        place = self.nearest(x, y)
        return self.xy[place], self.weights[place]


def sampled_points(inspection: Inspection) -> list[SampledPoints]:
    """The points of every part that samples, coarse to fine, or first layer to last.

    UN-EPT's encoder is left out: its queries are the pixels of all levels.
    """
    found = []
    for part, (kind, _) in inspection.parts.items():
        if kind == "ddsm" and inspection.has(part, "spatial.affinity.weights"):
            found.append(ddsm_points(inspection, part))
        elif kind == "dcn":
            found.append(dcn_points(inspection, part))
        elif kind == "attention":
            queries = inspection.taps.get(f"{part.rpartition('.decoder.')[0]}.context_queries")
            if queries is not None:  # not of an encoder
                found.append(attention_points(inspection, part, queries.shape[-2:]))
    return found


def ddsm_points(inspection: Inspection, part: str) -> SampledPoints:
    """DDSM's spatial affinity (Eqs. 1 and 2): p + p_n + Δp_n in the coarse level upsampled to the fine one's size.

    Both levels' corner pixels lie on the image's (`align_corners=True`). The weight is affinity times modulation.
    """
    inside = f"{part}.spatial.affinity"
    offset = inspection.tap(inside, "sampler.offset")  # (2N, h, w), x and y of each point
    weights = inspection.tap(inside, "weights") * inspection.tap(inside, "sampler.modulation")
    dx, dy = torch.unflatten(offset, 0, (-1, 2)).unbind(1)  # (N, h, w) each
    return _grid_points(inspection, part, dx, dy, weights)


def dcn_points(inspection: Inspection, part: str) -> SampledPoints:
    """The nine points of a deformable 3×3 convolution, in both levels at the fine one's size."""
    offset = inspection.tap(part, "offset")  # (18, h, w), y and x of each point
    dy, dx = torch.unflatten(offset, 0, (-1, 2)).unbind(1)
    return _grid_points(inspection, part, dx, dy, torch.full_like(dx, 1 / 9))


def _grid_points(inspection: Inspection, part: str, dx: Tensor, dy: Tensor, weights: Tensor) -> SampledPoints:
    """Points of a k × k grid around each pixel, row by row, moved by `dx` and `dy` (k², h, w) pixels of the level."""
    points, height, width = dx.shape
    side = round(points**0.5)
    pitch_x, pitch_y = pixel_pitch((height, width), inspection)
    steps = torch.arange(side) - side // 2
    px = torch.arange(width) + steps.repeat(side)[:, None, None] + dx
    py = torch.arange(height)[:, None] + steps.repeat_interleave(side)[:, None, None] + dy
    xy = torch.stack([px * pitch_x, py * pitch_y], dim=-1).permute(1, 2, 0, 3)[:, :, None]  # (h, w, 1, N, 2)
    return SampledPoints(
        part,
        inspection.parts[part].title,
        (np.arange(width) * pitch_x).astype(np.float32),
        (np.arange(height) * pitch_y).astype(np.float32),
        xy.float().numpy(),
        weights.permute(1, 2, 0)[:, :, None].float().numpy(),
    )


def attention_points(inspection: Inspection, part: str, size: Sequence[int]) -> SampledPoints:
    """UN-EPT's deformable attention (Eqs. 4 and 6), whose queries are the pixels of one map of this height and width.

    Levels reach from edge to edge of the image (`align_corners=False`), and so do the queries' places.
    """
    locations = inspection.tap(part, "locations")  # (Q, M, L, N, 2), 0 to 1
    weights = inspection.tap(part, "weights")  # (Q, M, L, N)
    heads, levels = weights.shape[1:3]
    extent = torch.tensor(inspection.input_size[::-1])
    xy = torch.unflatten((locations * extent - 0.5).flatten(1, 2), 0, tuple(size))  # (h, w, M · L, N, 2)
    centres = (torch.unflatten(pixel_centres(size), 0, tuple(size)) * extent - 0.5).numpy()
    ends = [f", level {level + 1}" for level in range(levels)] if levels > 1 else [""]
    names = [f"head {head + 1}{end}" for head in range(heads) for end in ends]
    return SampledPoints(
        part,
        inspection.parts[part].title,
        np.ascontiguousarray(centres[0, :, 0]),
        np.ascontiguousarray(centres[:, 0, 1]),
        xy.numpy(),
        torch.unflatten(weights.flatten(1, 2), 0, tuple(size)).numpy(),
        tuple(names),
    )
