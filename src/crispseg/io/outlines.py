"""The pixels of objects as COCO writes them: outlines along the edges of pixels, or run lengths of objects with holes.

Coordinates are those of COCO: (0, 0) is the top left corner of the first pixel.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

Polygons: TypeAlias = list[list[int]]
"""`[x, y, x, y, …]` of each outline."""

Runs: TypeAlias = dict[str, list[int]]
"""`counts` of pixels outside and inside in turns, column by column, and `size`, height before width."""


def segmentations(ids: NDArray[np.int32]) -> list[Polygons | Runs]:
    """What encloses just the pixels of each object in a map of numbers `(H, W)`, 0 for none, else 1 to N.

    These are polygons, one for each part that sides join. A polygon would fill holes, and many programs fill what only
    a corner closes, too: an object with such a place gets run lengths.
    """
    found: list[Polygons | Runs] = []
    for number, (rows, columns) in enumerate(find_objects(ids), 1):
        mask = ids[rows, columns] == number
        a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
        # Of a mask twice as large, the pixels of the outline lie next to the corners of the object's pixels.
        double = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        outlines, inside = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        if (inside[0, :, 3] >= 0).any() or ((a == d) & (b == c) & (a != b)).any():
            found.append(_run_lengths(mask, rows.start, columns.start, ids.shape))
            continue
        polygons = []
        for outline in outlines:
            corners = (outline[:, 0] + 1) // 2 + (columns.start, rows.start)  # (n, 2), x and y
            corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
            polygons.append(np.concatenate([corners[:1], corners[:0:-1]]).ravel().tolist())  # clockwise
        found.append(sorted(polygons, key=lambda polygon: (polygon[1], polygon[0])))
    return found


def _run_lengths(mask: NDArray[np.bool_], top: int, left: int, size: tuple[int, ...]) -> Runs:
    """The run lengths of an object whose box is at `top` and `left` of a map of `size`, height and width."""
    columns, rows = np.nonzero(mask.T)
    places = (columns + left) * size[0] + rows + top
    first = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    ends = places[np.append(first[1:], len(places)) - 1] + 1
    bounds = np.stack([places[first], ends], axis=1).ravel()
    return {"counts": np.diff(bounds, prepend=0, append=size[0] * size[1]).tolist(), "size": [*size]}
