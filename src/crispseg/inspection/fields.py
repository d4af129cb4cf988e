"""Flows and sampled points, which the page draws at a pixel.

Positions are in pixels of the image; (0, 0) is the centre of the first pixel. `payload` packs all data of the page's
script: integers with a scale, compressed, as base64.
"""

from __future__ import annotations

import base64
import itertools
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

CLASSES = 5  # number of most likely classes shown for a pixel
STORED_PIXELS = 2**16  # maximum number of pixels with stored probabilities; larger images store every n-th pixel
POINT_BYTES = 3 * 2**20  # maximum size of all sampled points in bytes before compression; a point takes 5 bytes


def pixel_pitch(size: tuple[int, int], inspection: Inspection) -> tuple[float, float]:
    """Return the distance in image pixels between neighbouring pixels of a level of `size` (height, width), in x and y.

    The centres of the corner pixels coincide (`Inspection.align_corners`), or the edges do.
    """
    (height, width), (rows, columns) = size, inspection.input_size
    if not inspection.align_corners:
        return columns / width, rows / height
    return (columns - 1) / max(width - 1, 1), (rows - 1) / max(height - 1, 1)


def flow_of(inspection: Inspection, part: str, tap: str = "flow") -> Tensor:
    """Return a FAM's flow in pixels of its fine level, `(2, h, w)`: x to the right and y downwards.

    `warp` moves a point by Δ / (w, h) in coordinates from -1 (centre of a level's first pixel) to 1 (centre of its
    last). In pixels, this is Δ_x (w - 1) / 2w and Δ_y (h - 1) / 2h, or Δ / 2 if coordinates run from edge to edge.
    """
    delta = inspection.tap(part, tap)
    if not inspection.align_corners:
        return delta / 2
    height, width = delta.shape[-2:]
    return delta * torch.tensor([(width - 1) / (2 * width), (height - 1) / (2 * height)])[:, None, None]


class SampledPoints(NamedTuple):
    """Points that each pixel of a level samples.

    Args:
        title: title of the part, such as "F5 → F4".
        xs, ys: positions of the level's pixels in the image, `(w,)` and `(h,)`.
        xy: x and y of the N points in each of G groups, `(h, w, G, N, 2)` float32; they may be outside the image.
        weights: weights `(h, w, G, N)` float32. DDSM: affinity × modulation, with sum at most 1. Attention: the sum
            over the points of all levels is 1 for each head. DCN: equal, since each point has its own matrix.
        groups: names of the groups, such as "head 1, level 2".
    """

    title: str
    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    xy: NDArray[np.float32]
    weights: NDArray[np.float32]
    groups: tuple[str, ...] = ("",)


def sampled_points(inspection: Inspection) -> list[SampledPoints]:
    """Return the points of every part that samples, from coarse to fine, or from the first layer to the last.

    UN-EPT's encoder is left out: its queries are the pixels of all levels.
    """
    points = []
    for part, (kind, title) in inspection.parts.items():
        if kind == "ddsm" and inspection.has(inside := f"{part}.spatial.affinity", "weights"):
            # DDSM's Eqs. 1 and 2: p + p_n + Δp_n in the coarse level, upsampled to the fine level's size.
            dx, dy = torch.unflatten(inspection.tap(inside, "sampler.offset"), 0, (-1, 2)).unbind(1)  # (N, h, w) each
            weights = inspection.tap(inside, "weights") * inspection.tap(inside, "sampler.modulation")
            points.append(_grid_points(inspection, title, dx, dy, weights))
        elif kind == "dcn":
            dy, dx = torch.unflatten(inspection.tap(part, "offset"), 0, (-1, 2)).unbind(1)  # (9, h, w) each
            points.append(_grid_points(inspection, title, dx, dy, torch.full_like(dx, 1 / len(dx))))
        elif kind == "attention":
            queries = inspection.taps.get(f"{part.rpartition('.decoder.')[0]}.context_queries")
            if queries is not None:  # None for an encoder
                points.append(_attention_points(inspection, part, (queries.shape[-2], queries.shape[-1])))
    return points


def _grid_points(inspection: Inspection, title: str, dx: Tensor, dy: Tensor, weights: Tensor) -> SampledPoints:
    """Return a k × k grid of points around each pixel, row by row, moved by `dx` and `dy` (k², h, w) level pixels."""
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
    """Return the points of UN-EPT's deformable attention (Eqs. 4 and 6); the queries are the pixels of a map of `size`.

    Levels and queries reach from edge to edge of the image (`align_corners=False`).
    """
    locations = inspection.tap(part, "locations")  # (Q, M, L, N, 2), 0 to 1
    weights = inspection.tap(part, "weights")  # (Q, M, L, N)
    heads, levels = weights.shape[1:3]
    extent = torch.tensor(inspection.input_size[::-1])
    xy = torch.unflatten((locations * extent - 0.5).flatten(1, 2), 0, size).numpy()  # (h, w, M · L, N, 2)
    centres = (torch.unflatten(pixel_centres(size), 0, size) * extent - 0.5).numpy()  # (h, w, 2)
    shares = torch.unflatten(weights.flatten(1, 2), 0, size).numpy()
    ends = [f", level {level + 1}" for level in range(levels)] if levels > 1 else [""]
    groups = tuple(f"head {head}{end}" for head, end in itertools.product(range(1, heads + 1), ends))
    return SampledPoints(inspection.parts[part].title, centres[0, :, 0], centres[:, 0, 1], xy, shares, groups)


def packed(values: NDArray[Any]) -> dict[str, str]:
    """Pack an array of 8-bit or 16-bit integers for the page's `unpack`."""
    little = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return {"type": values.dtype.name, "data": base64.b64encode(zlib.compress(little, 9)).decode("ascii")}


def packed_steps(values: NDArray[Any]) -> tuple[dict[str, str], float]:
    """Pack numbers as int16; return them and the size of one step, 1 / 32767 of the largest number."""
    step = float(np.abs(values).max(initial=0)) / 32767 or 1.0
    return packed(np.rint(values / step).astype(np.int16)), step


def payload(inspection: Inspection) -> dict[str, Any]:
    """Return all data of the page's script, without quantities that the model lacks.

    It includes the most likely classes and their probabilities for each pixel, or for every n-th pixel of large images.
    """
    height, width = inspection.size
    labels = inspection.label_set
    every = math.ceil(math.sqrt(height * width / STORED_PIXELS))
    probabilities = inspection.probabilities[:, ::every, ::every]
    best = np.argsort(-probabilities, axis=0, kind="stable")[:CLASSES]
    shares = np.take_along_axis(probabilities, best, 0)
    stored = {
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
        "kept": stored,
        "fields": list(_fields(inspection)),
        **{key: packed(values) for key, values in ids.items() if values is not None},
    }


def _fields(inspection: Inspection) -> Iterator[dict[str, Any]]:
    """Yield flows and sampled points, each with a `kind`."""
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
    sampling = sampled_points(inspection)
    for points in sampling:
        yield points_field(points, POINT_BYTES // len(sampling))


def points_field(points: SampledPoints, budget: int) -> dict[str, Any]:
    """Pack every n-th row and column of the level, so that they fit in `budget` bytes."""
    height, width, _, number = points.weights.shape
    every = math.ceil(math.sqrt(max(1.0, 5 * points.weights.size / budget)))
    taken = slice(every // 2, None, every)
    places, step = packed_steps(points.xy[taken, taken])
    weights = points.weights[taken, taken]
    top = float(weights.max(initial=0)) or 1.0
    return {
        "kind": "points",
        "title": f"points {points.title}",
        "size": [width, height],
        "every": every,
        "xs": points.xs[taken].tolist(),
        "ys": points.ys[taken].tolist(),
        "groups": points.groups,
        "number": number,
        "places": places,
        "step": step,
        "weights": packed(np.rint(255 * weights / top).astype(np.uint8)),
        "top": top,
    }
