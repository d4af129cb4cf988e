"""Copies: near duplicates of images, and images that overlap, by their facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from crispseg.folders.facts import ImageFacts, turns

# Largest RMS difference between thumbnails of one image, as a share of their contrast. JPEG compression, resizing and
# sometimes neighbouring video frames stay below it.
NEAR = 0.03
TURNED = 2  # factor of `NEAR` for mirrored or rotated images, which cannot be neighbouring frames
LEAST_CONTRAST = 2.0  # minimum standard deviation of a thumbnail for a comparison, on a scale of 0 to 255
NEIGHBOURS = range(1, 9)  # ranks of the nearest images that an image is compared with


def alike(some: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Return index pairs of near duplicates in `some` and `others`, including mirrored, rotated and brighter ones."""
    if not some or not others:
        return []
    (ours, contrast), (theirs, _) = _standardised(some), _standardised(others)
    radii = NEAR * np.where(contrast >= LEAST_CONTRAST, 1, -1) * ours[0].size ** 0.5
    # The mean over all turns is a projection, so it never increases distances. One quarter of it is enough.
    low, high = (
        2 * np.mean(turns(thumbnails), 0)[:, :4, :4].reshape(len(thumbnails), -1) for thumbnails in (theirs, ours)
    )
    distances, near = KDTree(low).query(high, NEIGHBOURS, distance_upper_bound=max(TURNED * radii.max(), 1e-6))
    first, rank = np.nonzero(distances <= TURNED * radii[:, None])
    second = near[first, rank]
    apart = [((turned[first] - theirs[second]) ** 2).sum((1, 2, 3)) ** 0.5 for turned in turns(ours)]
    near_duplicates = (apart[0] <= radii[first]) | (np.min(apart[1:], 0) <= TURNED * radii[first])
    return list(zip(first[near_duplicates].tolist(), second[near_duplicates].tolist(), strict=True))


FEWEST, COMMON = 6, 32  # fewest windows of an overlap, and most images in which a window is not a logo or a letter


def sharing(some: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Return index pairs of images in `some` and `others` that share pixels at another place, as overlapping crops do.

    Equal pixels at equal places, such as borders, logos and the background of a fixed camera, do not count.
    """
    ours, theirs = _windows(some), _windows(others)
    theirs = theirs[theirs[:, 0].argsort()]
    start, end = (np.searchsorted(theirs[:, 0], ours[:, 0], side) for side in ("left", "right"))
    count = np.where(end - start > COMMON, 0, end - start)
    own = ours.repeat(count, 0)
    other = theirs[np.arange(len(own)) + (start - count.cumsum() + count).repeat(count)]
    shift = other[:, 1:3] - own[:, 1:3]
    sizes = np.array([image.size for image in some]).reshape(-1, 2)
    other_sizes = np.array([image.size for image in others]).reshape(-1, 2)
    fixed = (shift == 0) | (shift == other_sizes[other[:, 3]] - sizes[own[:, 3]])  # from one of the corners
    rows = np.column_stack([own[:, 3], other[:, 3], shift])[~fixed.all(1)]
    shifts, count = np.unique(rows, axis=0, return_counts=True)
    return [(index, other_index) for index, other_index, *_ in shifts[count >= FEWEST].tolist()]


def _windows(images: Sequence[ImageFacts]) -> NDArray[np.int64]:
    """Return hash, row, column and the index of the image `(n, 4)` of all windows."""
    windows = [np.insert(image.windows, 3, index, 1) for index, image in enumerate(images)]
    return np.concatenate([np.zeros((0, 4), np.int64), *windows])


def _standardised(images: Sequence[ImageFacts]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return thumbnails `(n, 8, 8, 3)` without brightness and contrast, and the contrast `(n,)` that they had."""
    thumbnails = np.stack([image.thumbnail for image in images])
    contrast = thumbnails.std((1, 2, 3))
    centred = thumbnails - thumbnails.mean((1, 2), keepdims=True)
    return centred / np.maximum(contrast, LEAST_CONTRAST)[:, None, None, None], contrast
