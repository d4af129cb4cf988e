"""The targets of boundary refinement (UN-EPT, §3.2): boundary pixels and their direction to the inside.

They come from the distance transform of each class's region, as in SegFix (Yuan et al., ECCV 2020).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.labels import IGNORE
from crispseg.models.refinement import DIRECTIONS

NO_BOUNDARY = 8
NO_DIRECTION = 9
"""A boundary pixel with no way inside, such as one of a line that is one pixel wide."""

FLAT = 1e-3
"""Sobel's sum (8 times the slope) below which a distance map has no direction; in float32 it is off by some 1e-5."""


def boundary_targets(labels: NDArray[np.uint8], distance: float = 5) -> NDArray[np.uint8]:
    """Return the targets of the boundary head and the direction head for a mask, in one map.

    A pixel is on the boundary if a pixel of another class is within the distance, between pixel centres, inclusive. Its
    direction is that in which the distance to the other classes grows: the gradient of the distance map by Sobel's 3×3
    filter, to the nearest of 8. Ignored pixels belong to no class: the border between a class and them is no boundary,
    and a class behind them is as far as its pixels are. The edge of the image is no boundary.

    Args:
        labels: class ids `(H, W)`; 255 is ignored.
        distance: in pixels.

    Returns:
        `(H, W)`: 0 to 7, the direction of a boundary pixel (an index of `STEPS` in `crispseg.models.refinement`);
        `NO_DIRECTION`, a boundary pixel without one;
        `NO_BOUNDARY`, any other; 255, an ignored one.
    """
    targets = np.full(labels.shape, NO_BOUNDARY, np.uint8)
    ignored = labels == IGNORE
    targets[ignored] = IGNORE
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    # A boundary pixel's filter sees distances to pixels that are at most √2 further away.
    margin = math.ceil(distance) + 3
    for label in np.flatnonzero(counts[:IGNORE]).tolist():
        region = (labels == label).view(np.uint8)
        left, top, width, height = cv2.boundingRect(region)
        window = (
            slice(max(top - margin, 0), top + height + margin),
            slice(max(left - margin, 0), left + width + margin),
        )
        inside = region[window]
        away = cv2.distanceTransform(inside | ignored[window].view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Squared distances are whole numbers; half of one is room for float32's rounding.
        on_boundary = np.nonzero((inside > 0) & (away < math.sqrt(distance**2 + 0.5)))
        dx, dy = (
            cv2.Sobel(away, cv2.CV_32F, x, y, ksize=3, borderType=cv2.BORDER_REPLICATE)[on_boundary]
            for x, y in ((1, 0), (0, 1))
        )
        direction = np.rint(np.arctan2(dy, dx) * (DIRECTIONS / (2 * math.pi))).astype(np.int64) % DIRECTIONS
        targets[window][on_boundary] = np.where(np.maximum(abs(dx), abs(dy)) < FLAT, NO_DIRECTION, direction)
    return targets
