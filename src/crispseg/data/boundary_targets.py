"""Targets of boundary refinement (UN-EPT, §3.2): boundary pixels and their direction to the inside.

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
NO_DIRECTION = 9  # target of a boundary pixel without an inside direction, such as in a line one pixel wide
FLAT = 1e-3  # smallest Sobel sum (8 times the slope) with a direction; the float32 error is about 1e-5


def boundary_targets(labels: NDArray[np.uint8], distance: float = 5) -> NDArray[np.uint8]:
    """Return the targets of the boundary and direction heads for a mask, in one map.

    A pixel is on the boundary if the centre of a pixel of another class is at most `distance` away. Its direction is
    the gradient of the distance to other classes, computed with Sobel's 3×3 filter and rounded to one of 8. Ignored
    pixels belong to no class, so their border is no boundary. The distance to a class behind them is the distance to
    its pixels. The edge of the image is no boundary.

    Args:
        labels: class ids `(H, W)`; 255 is ignored.
        distance: width of the boundary in pixels.

    Returns:
        `(H, W)`: 0 to 7 for the direction of a boundary pixel (an index of `STEPS` in `crispseg.models.refinement`);
        `NO_DIRECTION` for a boundary pixel without one; `NO_BOUNDARY` for other pixels; 255 for ignored ones.
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
        window = np.s_[max(top - margin, 0) : top + height + margin, max(left - margin, 0) : left + width + margin]
        inside = region[window]
        away = cv2.distanceTransform(inside | ignored[window].view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Squared distances are integers; 0.5 leaves room for float32 rounding.
        on_boundary = np.nonzero((inside > 0) & (away < math.sqrt(distance**2 + 0.5)))
        dx, dy = (
            cv2.Sobel(away, cv2.CV_32F, x, y, ksize=3, borderType=cv2.BORDER_REPLICATE)[on_boundary]
            for x, y in ((1, 0), (0, 1))
        )
        direction = np.rint(np.arctan2(dy, dx) * (DIRECTIONS / (2 * math.pi))).astype(np.int64) % DIRECTIONS
        targets[window][on_boundary] = np.where(np.maximum(abs(dx), abs(dy)) < FLAT, NO_DIRECTION, direction)
    return targets
