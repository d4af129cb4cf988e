import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crispseg.data.boundary_targets import NO_BOUNDARY, NO_DIRECTION, boundary_targets
from crispseg.labels import IGNORE
from crispseg.models.refinement import STEPS


def brute_force(labels: NDArray[np.uint8], distance: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pixels are on a boundary, and the gradient `(2, H, W)`, x and y, by Sobel's sums in float64."""
    height, width = labels.shape
    boundary, gradient = np.zeros(labels.shape, bool), np.zeros((2, height, width))
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    others = {label: (labels != label) & (labels != IGNORE) for label in np.unique(labels)}

    def away(label: int, y: int, x: int) -> float:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        return np.hypot(rows - y, columns - x)[others[label]].min(initial=math.inf)

    for y, x in np.ndindex(*labels.shape):
        label = labels[y, x]
        if label == IGNORE or away(label, y, x) > distance:
            continue
        boundary[y, x] = True
        for weight, side in ((1, -1), (2, 0), (1, 1)):
            gradient[0, y, x] += weight * (away(label, y + side, x + 1) - away(label, y + side, x - 1))
            gradient[1, y, x] += weight * (away(label, y + 1, x + side) - away(label, y - 1, x + side))
    return boundary, gradient


def check(labels: NDArray[np.uint8], distance: float) -> None:
    targets = boundary_targets(labels, distance)
    boundary, (gx, gy) = brute_force(labels, distance)
    assert np.array_equal(targets == IGNORE, labels == IGNORE)
    assert np.array_equal((targets != NO_BOUNDARY) & (targets != IGNORE), boundary)
    still = np.maximum(abs(gx), abs(gy)) < 1e-6
    assert np.array_equal(targets == NO_DIRECTION, boundary & still)
    for y, x in np.argwhere(boundary & ~still):
        length = math.hypot(gx[y, x], gy[y, x])
        cosines = [(gx[y, x] * dx + gy[y, x] * dy) / (length * math.hypot(dx, dy)) for dx, dy in STEPS]
        assert cosines[targets[y, x]] > max(cosines) - 1e-4, (y, x)  # the nearest, or as near but for rounding


@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 4),
    ignored=st.sampled_from([0, 0.1, 0.7]),
    distance=st.sampled_from([1, 2, 2.5, 5]),
)
@settings(max_examples=40)
def test_targets_equal_a_brute_force_computation(seed: int, classes: int, ignored: float, distance: float) -> None:
    """On slanted patches of any ids, of which some pixels are ignored."""
    random = np.random.default_rng(seed)
    height, width, block = random.integers(1, 17), random.integers(1, 17), random.integers(1, 8)
    ids = [*random.permutation(IGNORE)[:classes], IGNORE]
    fine = random.choice(ids, size=(17, 17)).astype(np.uint8).repeat(block, 0).repeat(block, 1)
    slope = random.uniform(-2, 2)
    labels = np.stack([np.roll(row, round(slope * y)) for y, row in enumerate(fine)])[:height, :width].copy()
    labels[random.random(labels.shape) < ignored] = IGNORE
    check(labels, distance)
