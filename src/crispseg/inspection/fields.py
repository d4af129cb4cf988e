"""What the page draws at a pixel: flows and sampled points.

Positions are in pixels of the image with (0, 0) the centre of the first one. `payload` packs all that the page's script
needs: whole numbers with a scale, compressed, as base64.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.inspection.activations import Inspection
from crispseg.nn import pixel_centres

CLASSES = 5
"""Most likely classes of a pixel that are shown."""
PIXELS = 2**16
"""Pixels whose probabilities are kept; of a larger image every n-th."""
POINT_BYTES = 3 * 2**20
"""Bytes of all sampled points together, before compression: 5 a point."""


def pixel_pitch(size: tuple[int, int], inspection: Inspection) -> tuple[float, float]:
    """Pixels of the image from one pixel of a level of `size` (height, width) to the next, in x and in y.

    The centres of their corner pixels lie on each other (`Inspection.align_corners`), or their edges do.
    """
    (height, width), (rows, columns) = size, inspection.input_size
    if not inspection.align_corners:
        return columns / width, rows / height
    return (columns - 1) / max(width - 1, 1), (rows - 1) / max(height - 1, 1)


def flow_of(inspection: Inspection, part: str, tap: str = "flow") -> Tensor:
    """Return a FAM's flow in pixels of its fine level, `(2, h, w)`: x to the right and y downwards.

    `warp` moves a point by Δ / (w, h) in coordinates from -1, the centre of a level's first pixel, to 1, that of its
    last: by Δ_x (w - 1) / 2w and Δ_y (h - 1) / 2h pixels; by Δ / 2 if coordinates run from edge to edge.
    """
    delta = inspection.tap(part, tap)
    if not inspection.align_corners:
        return delta / 2
    height, width = delta.shape[-2:]
    return delta * torch.tensor([(width - 1) / (2 * width), (height - 1) / (2 * height)])[:, None, None]


class SampledPoints(NamedTuple):
    """The points that each pixel of a level samples.

    Args:
        title: of the part, such as "F5 → F4".
        xs, ys: positions of the level's pixels in the image, `(w,)` and `(h,)`.
        xy: `(h, w, G, N, 2)` float32, x and y of the N points in each of G groups; they may lie outside the image.
        weights: `(h, w, G, N)` float32. DDSM: affinity × modulation, in sum at most 1; attention: 1 in sum over the
            points of all levels for each head.
        groups: names, such as "head 1, level 2".
    """

    title: str
    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    xy: NDArray[np.float32]
    weights: NDArray[np.float32]
    groups: tuple[str, ...] = ("",)

    def nearest(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the level's pixel that is nearest to a position in the image."""
        return int(np.abs(self.ys - y).argmin()), int(np.abs(self.xs - x).argmin())


def sampled_points(inspection: Inspection) -> list[SampledPoints]:
    """The points of every part that samples, coarse to fine, or first layer to last.

    UN-EPT's encoder is left out: its queries are the pixels of all levels.
    """
    found = []
    for part, (kind, title) in inspection.parts.items():
        if kind == "ddsm" and inspection.has(inside := f"{part}.spatial.affinity", "weights"):
            # DDSM's Eqs. 1 and 2: p + p_n + Δp_n in the coarse level upsampled to the fine one's size.
            dx, dy = torch.unflatten(inspection.tap(inside, "sampler.offset"), 0, (-1, 2)).unbind(1)  # (N, h, w) each
            weights = inspection.tap(inside, "weights") * inspection.tap(inside, "sampler.modulation")
            found.append(_grid_points(inspection, title, dx, dy, weights))
        elif kind == "attention":
            queries = inspection.taps.get(f"{part.rpartition('.decoder.')[0]}.context_queries")
            if queries is not None:  # not of an encoder
                found.append(_attention_points(inspection, part, (queries.shape[-2], queries.shape[-1])))
    return found


def _grid_points(inspection: Inspection, title: str, dx: Tensor, dy: Tensor, weights: Tensor) -> SampledPoints:
    """Points of a k × k grid around each pixel, row by row, moved by `dx` and `dy` (k², h, w) pixels of the level."""
    points, height, width = dx.shape
    side = round(points**0.5)
    pitch_x, pitch_y = pixel_pitch((height, width), inspection)
    steps, xs, ys = torch.arange(side) - side // 2, torch.arange(width), torch.arange(height)
    px = (xs + steps.repeat(side)[:, None, None] + dx) * pitch_x
    py = (ys[:, None] + steps.repeat_interleave(side)[:, None, None] + dy) * pitch_y
    xy = torch.stack([px, py], dim=-1).permute(1, 2, 0, 3)[:, :, None].float().numpy()  # (h, w, 1, N, 2)
    shares = weights.permute(1, 2, 0)[:, :, None].numpy()
    return SampledPoints(title, (xs * pitch_x).numpy(), (ys * pitch_y).numpy(), xy, shares)


def _attention_points(inspection: Inspection, part: str, size: tuple[int, int]) -> SampledPoints:
    """UN-EPT's deformable attention (Eqs. 4 and 6), whose queries are the pixels of one map of this height and width.

    Levels reach from edge to edge of the image (`align_corners=False`), and so do the queries' places.
    """
    locations = inspection.tap(part, "locations")  # (Q, M, L, N, 2), 0 to 1
    weights = inspection.tap(part, "weights")  # (Q, M, L, N)
    heads, levels = weights.shape[1:3]
    extent = torch.tensor(inspection.input_size[::-1])
    xy = torch.unflatten((locations * extent - 0.5).flatten(1, 2), 0, size).numpy()  # (h, w, M · L, N, 2)
    centres = (torch.unflatten(pixel_centres(size), 0, size) * extent - 0.5).numpy()  # (h, w, 2)
    shares = torch.unflatten(weights.flatten(1, 2), 0, size).numpy()
    ends = [f", level {level + 1}" for level in range(levels)] if levels > 1 else [""]
    groups = tuple(f"head {head + 1}{end}" for head in range(heads) for end in ends)
    return SampledPoints(inspection.parts[part].title, centres[0, :, 0], centres[:, 0, 1], xy, shares, groups)


def packed(values: NDArray[Any]) -> dict[str, str]:
    """An array of whole numbers of 8 or 16 bits, as the page's `unpack` takes it."""
    little = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return {"type": values.dtype.name, "data": base64.b64encode(zlib.compress(little, 9)).decode("ascii")}


def packed_steps(values: NDArray[Any]) -> tuple[dict[str, str], float]:
    """Numbers packed as int16, and the size of one step: 1 / 32767 of the largest."""
    step = float(np.abs(values).max(initial=0)) / 32767 or 1.0
    return packed(np.rint(values / step).astype(np.int16)), step


def payload(inspection: Inspection) -> dict[str, Any]:
    """All data of the page's script; what the model does not have is not in it.

    Of each pixel, of a large image of every n-th, it has the most likely classes and their probabilities.
    """
    height, width = inspection.size
    labels = inspection.label_set
    every = math.ceil(math.sqrt(height * width / PIXELS))
    probabilities = inspection.probabilities[:, ::every, ::every]
    best = np.argsort(-probabilities, axis=0, kind="stable")[:CLASSES]
    shares = np.take_along_axis(probabilities, best, 0)
    kept = {
        "step": every,
        "size": list(probabilities.shape[:0:-1]),
        "count": len(best),
        "ids": packed(best.transpose(1, 2, 0).astype(np.uint8)),
        "shares": packed(np.rint(65535 * shares.transpose(1, 2, 0)).astype(np.uint16)),
    }
    ids = {key: getattr(inspection, key) for key in ("labels", "truth", "unrefined")}
    return {
        "size": [width, height],
        "names": list(labels.names),
        "colors": ["rgb({}, {}, {})".format(*color) for color in labels.palette],
        "kept": kept,
        "fields": list(_fields(inspection)),
        **{key: packed(values) for key, values in ids.items() if values is not None},
    }


def _fields(inspection: Inspection) -> Iterator[dict[str, Any]]:
    """Flows and sampled points, each with a `kind`."""
    for part in inspection.of("fam"):
        flow = flow_of(inspection, part)
        vectors, step = packed_steps(flow.permute(1, 2, 0).numpy())
        pitch = pixel_pitch((flow.shape[1], flow.shape[2]), inspection)
        yield {
            "kind": "flow",
            "title": f"flow {inspection.parts[part].title}",
            "size": [flow.shape[2], flow.shape[1]],
            "pitch": list(pitch),
            "origin": [0 if inspection.align_corners else (side - 1) / 2 for side in pitch],
            "vectors": vectors,
            "step": step,
            "longest": float(flow.norm(dim=0).max()),
        }
    points = sampled_points(inspection)
    for each in points:
        yield points_field(each, POINT_BYTES // len(points))


def points_field(points: SampledPoints, budget: int) -> dict[str, Any]:
    """Every n-th row and column of the level, so that `budget` bytes are enough."""
    height, width, _, number = points.weights.shape
    every = math.ceil(math.sqrt(max(1.0, 5 * points.weights.size / budget)))
    kept = slice(every // 2, None, every)
    places, step = packed_steps(points.xy[kept, kept])
    weights = points.weights[kept, kept]
    top = float(weights.max(initial=0)) or 1.0
    return {
        "kind": "points",
        "title": f"points {points.title}",
        "size": [width, height],
        "every": every,
        "xs": points.xs[kept].tolist(),
        "ys": points.ys[kept].tolist(),
        "groups": points.groups,
        "number": number,
        "places": places,
        "step": step,
        "weights": packed(np.rint(255 * weights / top).astype(np.uint8)),
        "top": top,
    }
