"""From outlines and run lengths to pixels.

Coordinates are those of COCO and labelme: (0, 0) is the top left corner of the first pixel, whose centre is (0.5, 0.5).
A pixel belongs to a shape if its centre lies inside. OpenCV's fillPoly paints what the outline touches too, which makes
every object half a pixel larger on each side; so polygons are filled here.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Patch(NamedTuple):
    """The pixels of a shape, in the smallest box that holds them."""

    top: int
    left: int
    mask: NDArray[np.bool_]
    """`(h, w)`."""

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))


def cropped(mask: NDArray[np.bool_], top: int = 0, left: int = 0) -> Patch:
    """The patch of a mask `(h, w)` whose first pixel is at `(top, left)`."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Patch(top, left, np.zeros((0, 0), bool))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Patch(top + int(rows[0]), left + int(columns[0]), inner)


def polygon(points: NDArray[np.float64], height: int, width: int) -> Patch:
    """The inside of a closed outline by the even-odd rule, cut at the image's border.

    Args:
        points: `(N, 2)` corners, x before y.
        height, width: of the image.
    """
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # Row r is crossed by the edges with one end above r + 0.5 and the other at or below it.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64) - first
    if not count.any():
        return Patch(0, 0, np.zeros((0, 0), bool))
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)  # the first pixel to the right of it
    top, left = int(row.min()), int(column.min())
    flips = np.zeros((row.max() + 1 - top, column.max() + 1 - left), np.int64)
    np.add.at(flips, (row - top, column - left), 1)
    inside = (np.cumsum(flips, axis=1) & 1).astype(bool)
    return cropped(inside, top, left)


def rectangle(corners: NDArray[np.float64], height: int, width: int) -> Patch:
    """The box between two opposite corners `(2, 2)`, cut at the image's border."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), height, width)


def circle(points: NDArray[np.float64], height: int, width: int) -> Patch:
    """The disk around the first of two points `(2, 2)` whose rim the second lies on, cut at the image's border.

    Raises:
        ValueError: there are not two points.
    """
    if len(points) != 2:
        raise ValueError(f"it has {len(points)} points, but a circle has 2, its centre and one of its rim")
    (x, y), rim = points
    radius = float(np.hypot(*(rim - points[0])))
    top, left = max(ceil(y - radius - 0.5), 0), max(ceil(x - radius - 0.5), 0)
    rows = np.arange(top, min(ceil(y + radius + 0.5), height)) + 0.5
    columns = np.arange(left, min(ceil(x + radius + 0.5), width)) + 0.5
    return cropped((rows[:, None] - y) ** 2 + (columns - x) ** 2 < radius**2, top, left)


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
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("its counts are no compressed run lengths")
    starts = np.concatenate([[0], ends[:-1] + 1])
    groups = ends - starts + 1
    if groups.max() > 7:  # 35 bits are more than any image has pixels
        raise ValueError("its counts are no compressed run lengths")
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, groups))
    counts = np.add.reduceat((codes & 31) << shift, starts)
    counts -= np.where(codes[ends] & 16, 1 << (5 * groups), 0)
    counts[1::2], counts[2::2] = np.cumsum(counts[1::2]), np.cumsum(counts[2::2])
    return counts


def runs(counts: Any, height: int, width: int) -> Patch:
    """The pixels that run lengths mark: columns from left to right, each from top to bottom, 0 and 1 in turns.

    Args:
        counts: numbers, or COCO's compressed text of them.
        height, width: of the image.

    Raises:
        ValueError: they are no run lengths, or not of this size.
    """
    if isinstance(counts, str):
        numbers = run_lengths(counts)
    else:
        try:
            numbers = np.asarray(counts)
        except ValueError:  # lists of different lengths
            raise ValueError("its counts are no list of whole numbers") from None
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
            raise ValueError("its counts are no list of whole numbers")
    if numbers.min() < 0:
        raise ValueError(f"its counts hold {numbers.min()}, but a number of pixels is not negative")
    if numbers.max() > height * width:  # before they are added, since the sum of huge ones wraps around
        raise ValueError(f"its counts hold {numbers.max()}, but the image has {height * width} pixels")
    if numbers.sum() != height * width:
        raise ValueError(f"its counts make {numbers.sum()} pixels, but the image has {height * width}")
    values = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
    return cropped(values.reshape(width, height).T)
