"""From outlines and run lengths to pixels, by COCO's own code.

Coordinates are those of COCO and labelme: (0, 0) is the top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` places in an image that is laid out row by row: row · width + column."""


def polygon(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The inside of a closed outline by the even-odd rule, cut at the image's border.

    Args:
        points: `(N, 2)` corners, x before y, at least three.
        height, width: size of the image in pixels.
    """
    return _pixels(coco.frPyObjects([points.ravel().tolist()], height, width)[0])


def rectangle(corners: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The box between two opposite corners `(2, 2)`, cut at the image's border."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), height, width)


def circle(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The pixels whose centre lies in the disk around the first of two points `(2, 2)`, the second being on its rim.

    Raises:
        ValueError: there are not two points.
    """
    if len(points) != 2:
        raise ValueError(f"it has {len(points)} points, but a circle has 2, its centre and one of its rim")
    (x, y), rim = points
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    return np.flatnonzero((columns - x) ** 2 + (rows - y) ** 2 < ((rim - points[0]) ** 2).sum())


def runs(counts: Any, height: int, width: int) -> Pixels:
    """The pixels that run lengths mark: columns from left to right, each from top to bottom, 0 and 1 in turns.

    Args:
        counts: numbers, or COCO's compressed text of them.
        height, width: size of the image in pixels.

    Raises:
        ValueError: they are no run lengths, or not of this size.
    """
    size = [height, width]
    try:
        if isinstance(counts, str):
            counts = _uncompressed(counts)
        if (total := sum(counts)) == height * width:
            return _pixels(coco.frPyObjects({"size": size, "counts": counts}, height, width))
    except (ValueError, TypeError, OverflowError):
        raise ValueError("its counts are no run lengths of this size") from None
    raise ValueError(f"its counts make {total} pixels, but the image has {height * width}")


def _uncompressed(text: str) -> list[int]:
    """The numbers of COCO's compressed text, since pycocotools does not say whether they cover the whole image.

    A character holds five bits and whether more follow; from the fourth number on it is the change to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:
            value -= (value >> shift - 1 & 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _pixels(rle: Any) -> Pixels:
    return np.flatnonzero(coco.decode(rle))
