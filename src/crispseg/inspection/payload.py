"""What the page's script needs of an inspection, small: whole numbers with a scale, compressed, as base64.

Positions are in pixels of the image with (0, 0) the centre of the first one.
"""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from crispseg.inspection.activations import Inspection
from crispseg.inspection.flow import Flow, flows, pixel_pitch
from crispseg.inspection.points import SampledPoints, sampled_points

CLASSES = 5
"""Most likely classes of a pixel that are told."""
PIXELS_TOLD = 2**16
"""Pixels whose probabilities are told; of a larger image every n-th."""
POINT_BYTES = 3 * 2**20
"""Bytes of all sampled points together, before compression: 5 a point."""
SIDE = 64
"""Longest side of the grids on which attention maps and mixtures of descriptors are told."""
MIXED = 8
"""Descriptors of a pixel's mixture that are told."""


def packed(values: NDArray[Any]) -> dict[str, str]:
    """An array of whole numbers of 8 or 16 bits, as the page's `unpack` takes it."""
    little = values.astype(values.dtype.newbyteorder("<")).tobytes()
    data = base64.b64encode(zlib.compress(little, 9)).decode("ascii")
    return {"type": values.dtype.name, "data": data}


def quantised(values: NDArray[Any]) -> tuple[NDArray[np.int16], float]:
    """Numbers as int16 and what one step is: the largest is off by no more than half of 1 / 32767 of it."""
    step = float(np.abs(values).max(initial=0)) / 32767 or 1.0
    return np.rint(values / step).astype(np.int16), step


def payload(inspection: Inspection) -> dict[str, Any]:
    """All of it; what the model does not have is not there."""
    height, width = inspection.size
    labels = inspection.label_set
    data: dict[str, Any] = {
        "size": [width, height],
        "names": list(labels.names),
        "colors": ["rgb({}, {}, {})".format(*color) for color in labels.palette],
        "labels": packed(inspection.labels),
        "told": told(inspection),
        "fields": fields(inspection),
        "gathered": {part: _gathered(inspection, part) for part in inspection.of("gathering")},
    }
    for key in ("truth", "unrefined"):
        if (ids := getattr(inspection, key)) is not None:
            data[key] = packed(ids)
    return data


def told(inspection: Inspection) -> dict[str, Any]:
    """The most likely classes, their probabilities, the entropy and, with refinement, the boundary's probability."""
    height, width = inspection.size
    step = math.ceil(math.sqrt(height * width / PIXELS_TOLD))
    probabilities = inspection.probabilities[:, ::step, ::step]
    count = min(CLASSES, len(probabilities))
    best = np.argsort(-probabilities, axis=0, kind="stable")[:count]
    found: dict[str, Any] = {
        "step": step,
        "size": list(probabilities.shape[:0:-1]),
        "count": count,
        "ids": packed(best.transpose(1, 2, 0).astype(np.uint8)),
        "shares": packed(_level(np.take_along_axis(probabilities, best, 0).transpose(1, 2, 0), np.uint16)),
        "entropy": packed(_level(inspection.entropy(normalised=True)[::step, ::step])),
        "most": math.log(len(probabilities)),
    }
    if inspection.boundary is not None:
        found["boundary"] = packed(_level(inspection.boundary[::step, ::step]))
    return found


def fields(inspection: Inspection) -> list[dict[str, Any]]:
    """Flows, sampled points, mixtures of descriptors and the refinement's offsets, each with a `kind`."""
    points = sampled_points(inspection)
    budget = POINT_BYTES // max(len(points), 1)
    found = [_flow_field(flow, inspection) for flow in flows(inspection)]
    found += [points_field(each, budget) for each in points]
    found += [
        _mixture_field(inspection, block, gathers)
        for block in inspection.of("cfb")
        if (gathers := gathering_part(inspection, block))
    ]
    if inspection.offsets is not None:
        found.append({"kind": "refinement", "title": "boundary refinement", "offsets": packed(inspection.offsets)})
    return found


def _flow_field(flow: Flow, inspection: Inspection) -> dict[str, Any]:
    vectors, step = quantised(flow.pixels.permute(1, 2, 0).numpy())
    pitch = pixel_pitch(flow.size, inspection)
    return {
        "kind": "flow",
        "title": f"flow {flow.title}",
        "size": list(flow.size[::-1]),
        "pitch": list(pitch),
        "origin": [
            0 if inspection.align_corners else (side - 1) / 2 for side in pitch
        ],  # of the first pixel, in the image
        "vectors": packed(vectors),
        "step": step,
        "longest": flow.longest(),
    }


def points_field(points: SampledPoints, budget: int) -> dict[str, Any]:
    """Every n-th row and column of the level, so that `budget` bytes are enough."""
    height, width, _, number = points.weights.shape
    every = math.ceil(math.sqrt(max(1.0, 5 * points.weights.size / budget)))
    kept = slice(every // 2, None, every)
    places, step = quantised(points.xy[kept, kept])
    weights = points.weights[kept, kept]
    top = float(weights.max(initial=0)) or 1.0
    return {
        "kind": "points",
        "title": f"points {points.title}",
        "size": [width, height],
        "every": every,
        "xs": [round(float(x), 3) for x in points.xs[kept]],
        "ys": [round(float(y), 3) for y in points.ys[kept]],
        "groups": list(points.groups),
        "number": number,
        "places": packed(places),
        "step": step,
        "weights": packed(_level(weights / top)),
        "top": top,
    }


def gathering_part(inspection: Inspection, block: str) -> str | None:
    """Path of the aggregation block whose descriptors a context fusion block distributes; None if it did not run."""
    decoder, _, index = block.partition(".fuses.")
    blocks = ".blocks." in block
    found = f"{decoder}.gathers.{index.rpartition('.')[2]}" if blocks else f"{block.removesuffix('.cfb')}.sab"
    return found if found in inspection.of("gathering") else None


def _mixture_field(inspection: Inspection, block: str, gathers: str) -> dict[str, Any]:
    """For each pixel the descriptors that it mixes; `from` names, in "gathered", from where each was gathered."""
    count = inspection.tap(gathers, "X_am").shape[0]
    height, width = inspection.tap(block, "sdm.M").shape[-2:]
    mixture = np.ones((1, height, width), np.float32)  # a single descriptor, which every pixel takes
    if inspection.has(block, "sdm.A_av"):
        mixture = inspection.tap(block, "sdm.A_av").numpy()  # (N, H, W), 1 in sum over N (AGLN, Eq. 2)
    every = math.ceil(max(height, width) / SIDE)
    mixture = mixture[:, every // 2 :: every, every // 2 :: every]
    told_count = min(MIXED, count)
    ids = np.argsort(-mixture, axis=0, kind="stable")[:told_count]
    pitch_x, pitch_y = pixel_pitch((height, width), inspection)
    return {
        "kind": "mixture",
        "from": gathers,
        "title": f"{inspection.parts[block].title}: {inspection.parts[gathers].title}",
        "size": [width, height],
        "xs": [round(float(x) * pitch_x, 3) for x in range(every // 2, width, every)],
        "ys": [round(float(y) * pitch_y, 3) for y in range(every // 2, height, every)],
        "descriptors": count,
        "count": told_count,
        "ids": packed(ids.transpose(1, 2, 0).astype(np.uint16)),
        "shares": packed(_level(np.take_along_axis(mixture, ids, 0).transpose(1, 2, 0))),
    }


def _gathered(inspection: Inspection, part: str) -> dict[str, Any]:
    """The attention maps of an aggregation block, each on its own scale, on a grid of at most `SIDE` cells a side."""
    attention = inspection.tap(part, "X_am")  # (N, h, w), 1 in sum
    rows, columns = attention.shape[1:]
    fold = math.ceil(max(rows, columns) / SIDE)
    folded = F.avg_pool2d(attention, fold, ceil_mode=True, divisor_override=1).numpy()  # sums
    peaks = folded.max(axis=(1, 2), keepdims=True)
    coarse_x, coarse_y = pixel_pitch((rows, columns), inspection)
    return {
        "maps": packed(_level(folded / np.maximum(peaks, np.finfo(np.float32).tiny))),
        "peaks": [float(peak) for peak in peaks.ravel()],
        "grid": [folded.shape[2], folded.shape[1]],
        "area": rows * columns / fold**2,
        # Where the grid of attention begins and how wide its cells are, in pixels of the image.
        "origin": [-coarse_x / 2, -coarse_y / 2],
        "pitch": [coarse_x * fold, coarse_y * fold],
    }


def _level(shares: NDArray[Any], kind: type[np.uint8] | type[np.uint16] = np.uint8) -> NDArray[Any]:
    """0 to 1 → 0 to the type's largest number."""
    levels: NDArray[Any] = np.rint(np.clip(shares, 0, 1) * np.iinfo(kind).max).astype(kind)
    return levels
