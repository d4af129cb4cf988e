"""From outlines and run lengths to pixels.

Coordinates are those of COCO and labelme: (0, 0) is the top left corner of the first pixel, whose centre is (0.5, 0.5).
A pixel belongs to a shape if its centre lies inside. OpenCV's fillPoly paints what the outline touches too, and
pycocotools rounds corners to a fifth of a pixel and columns to whole ones; so polygons are filled here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` places in an image that is laid out row by row: row · width + column."""


def polygon(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The inside of a closed outline by the even-odd rule, cut at the image's border.

    Args:
        points: `(N, 2)` corners, x before y.
        height, width: size of the image in pixels.
    """
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # Row r is crossed by the edges with one end above r + 0.5 and the other at or below it.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64) - first
    if not count.any():
        return np.zeros(0, np.int64)
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)  # the first pixel to the right of it
    top, left = int(row.min()), int(column.min())
    flips = np.zeros((row.max() + 1 - top, column.max() + 1 - left), np.int64)
    np.add.at(flips, (row - top, column - left), 1)
    return placed(np.cumsum(flips, axis=1) & 1, top, left, width)


def rectangle(corners: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The box between two opposite corners `(2, 2)`, cut at the image's border."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), height, width)


def circle(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The disk around the first of two points `(2, 2)` whose rim the second lies on, cut at the image's border.

    Raises:
        ValueError: there are not two points.
    """
    if len(points) != 2:
        raise ValueError(f"it has {len(points)} points, but a circle has 2, its centre and one of its rim")
    (x, y), rim = points
    radius = float(np.hypot(*(rim - points[0])))
    top, left = max(int(y - radius), 0), max(int(x - radius), 0)
    rows = np.arange(top, min(int(y + radius) + 1, height))[:, None] + 0.5
    columns = np.arange(left, min(int(x + radius) + 1, width)) + 0.5
    return placed((columns - x) ** 2 + (rows - y) ** 2 < radius**2, top, left, width)


def placed(mask: NDArray[Any], top: int, left: int, width: int) -> Pixels:
    """The pixels of a mask `(h, w)` whose first one is at `(top, left)` of an image of this width."""
    rows, columns = np.nonzero(mask)
    return (rows + top) * width + columns + left


def run_lengths(text: str) -> NDArray[np.int64]:
    """The counts of COCO's compressed run lengths.

    Each count is written in groups of five bits, the lowest first, as characters from "0" on; bit 5 says that another
    group follows, bit 4 of the last one is the sign. From the fourth count on the difference to the last but one is
    written.

    Raises:
        ValueError: the text is no such thing.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    groups = np.diff(ends, prepend=-1)
    sound = len(ends) and ends[-1] == len(codes) - 1 and codes.min() >= 0 and codes.max() <= 63
    if not sound or groups.max() > 7:  # 35 bits are more than any image has pixels
        raise ValueError("its counts are no compressed run lengths")
    starts = ends + 1 - groups
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, groups))
    counts = np.add.reduceat((codes & 31) << shift, starts)
    counts -= np.where(codes[ends] & 16, 1 << (5 * groups), 0)
    counts[1::2], counts[2::2] = np.cumsum(counts[1::2]), np.cumsum(counts[2::2])
    return counts


def runs(counts: Any, height: int, width: int) -> Pixels:
    """The pixels that run lengths mark: columns from left to right, each from top to bottom, 0 and 1 in turns.

    Args:
        counts: numbers, or COCO's compressed text of them.
        height, width: size of the image in pixels.

    Raises:
        ValueError: they are no run lengths, or not of this size.
    """
    if isinstance(counts, str):
        counts = run_lengths(counts).tolist()
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("its counts are no list of whole numbers from 0 on")
    if sum(counts) != height * width:
        raise ValueError(f"its counts make {sum(counts)} pixels, but the image has {height * width}")
    ends, inside = np.cumsum(counts, dtype=np.int64)[1::2], np.array(counts[1::2], np.int64)
    column, row = np.divmod(np.arange(inside.sum()) + np.repeat(ends - np.cumsum(inside), inside), height)
    return row * width + column
