"""The pixels of objects as COCO writes them: outlines along the edges of pixels, or run lengths of objects with holes.

Coordinates are those of COCO: (0, 0) is the top left corner of the first pixel.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Polygons: TypeAlias = list[list[int]]
"""`[x, y, x, y, …]` of each outline."""

Runs: TypeAlias = dict[str, list[int]]
"""`counts` of pixels outside and inside in turns, column by column, and `size`, height before width."""


def segmentations(ids: NDArray[np.int32]) -> list[Polygons | Runs]:
    """What encloses just the pixels of each object in a map of numbers `(H, W)`, 0 for none, else 1 to N.

    These are polygons, one for each part that sides join. A polygon would fill holes, and many programs fill what only
    a corner closes, too: an object with such a place gets run lengths. The time goes with the pixels of the map and the
    corners of the outlines.
    """
    corners, pinched = _corners(ids)
    owner, row, column, _, down, inner = corners[:, np.lexsort((corners[3], corners[2], corners[1], corners[0]))]
    # An edge along a row joins the object's first corner there with the second, the third with the fourth, and so on;
    # and so do edges along a column.
    vertical = np.lexsort((down, row, column, owner))
    across = np.empty_like(vertical)
    across[vertical] = vertical.reshape(-1, 2)[:, ::-1].ravel()
    points, owners, others, inside = np.stack([column, row], axis=1), owner.tolist(), across.tolist(), inner.tolist()
    polygons: list[Polygons] = [[] for _ in range(ids.max(initial=0))]
    holed, seen = set(pinched.tolist()), bytearray(len(owners))
    for start in range(0, len(owners), 2):
        outline: list[int] = []
        at = start
        while not seen[at]:
            outline += at, at ^ 1
            seen[at] = seen[at ^ 1] = True
            at = others[at ^ 1]
        if outline:
            polygons[owners[start] - 1].append(points[outline].ravel().tolist())
            if inside[start]:  # a hole, since the object is also above the first corner, which no other lies above
                holed.add(owners[start])
    runs = _run_lengths(ids, holed)
    return [runs.get(number, polygon) for number, polygon in enumerate(polygons, 1)]


def _corners(ids: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Where outlines turn, and the numbers of objects of which two pixels touch with nothing but a corner.

    Each column of the first, `(6, n)`, is a corner: the number of the object, row and column, whether its edges lead
    right and down from there, and whether it is an inner one, which three pixels of the object surround.
    """
    padded = np.pad(ids, 1)
    mixed = (padded[1:, 1:] != padded[:-1, 1:]) | (padded[1:, :-1] != padded[:-1, :-1])
    mixed |= padded[:-1, 1:] != padded[:-1, :-1]
    rows, columns = np.nonzero(mixed)
    around = [[padded[rows + down, columns + right] for right in (0, 1)] for down in (0, 1)]
    corners, pinched = [], []
    for down, right in np.ndindex(2, 2):
        own, beside = around[down][right], around[down][1 - right]
        below, opposite = around[1 - down][right], around[1 - down][1 - right]
        outer = (own > 0) & (own != beside) & (own != below)
        inner = (beside > 0) & (beside == below) & (beside == opposite) & (beside != own)
        pinched.append(own[outer & (own == opposite)])
        for kind, (at, number) in enumerate(((outer, own), (inner, beside))):
            flags = (np.full(np.count_nonzero(at), flag) for flag in (right, down, kind))
            corners.append(np.stack([number[at], rows[at], columns[at], *flags]))
    return np.concatenate(corners, axis=1), np.concatenate(pinched)


def _run_lengths(ids: NDArray[np.int32], numbers: set[int]) -> dict[int, Runs]:
    """The run lengths of objects of these numbers."""
    if not numbers:
        return {}
    wanted = np.zeros(ids.max() + 1, np.bool_)
    wanted[list(numbers)] = True
    flat = ids.ravel("F")
    places = np.flatnonzero(wanted[flat])
    places = places[np.argsort(flat[places], kind="stable")]
    owners = flat[places]
    first = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (np.diff(owners, prepend=0) != 0))
    ends = places[np.append(first[1:], len(places)) - 1] + 1
    each = np.split(np.stack([places[first], ends], axis=1), np.flatnonzero(np.diff(owners[first])) + 1)
    counts = (np.diff(runs.ravel(), prepend=0, append=ids.size).tolist() for runs in each)
    return {number: {"counts": one, "size": [*ids.shape]} for number, one in zip(sorted(numbers), counts, strict=True)}
