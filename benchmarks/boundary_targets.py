"""How many masks a second one core makes into UN-EPT's boundary and direction targets.

    python benchmarks/boundary_targets.py
    python benchmarks/boundary_targets.py --masks CAMVID/valannot --ignored 11

What is measured is `BoundaryTargets` on uint8 labels, as the data workers call it after the augmentation, beside the
plain way: for one class after the other, SciPy's `distance_transform_edt` of the whole image, and SciPy's `sobel`.

masks.py says which masks.

Both ways run on one thread of one process, in turns, on all masks. Times are medians of the rounds after one that does
not count. Targets must be equal, or the script ends with an error. Only where a gradient is halfway between two
directions, so that rounding decides, either will do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import cv2
import numpy as np
import torch
from masks import Labels, add_mask_arguments, asked_masks
from numpy.typing import NDArray
from processes import machine, positive
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE
from crispseg.models.boundary_targets import FLAT, NO_BOUNDARY, NO_DIRECTION, BoundaryTargets
from crispseg.models.refinement import DIRECTIONS

DISTANCE = 5  # pixels, as in training by default
HALFWAY = 1e-3
"""How near to the middle between two directions, which are 1 apart, the rounding of float32 may decide."""

Ways = Mapping[str, Callable[[Labels], object]]


# The plain way -------------------------------------------------------------------------------------------------------


def plain_targets(labels: Labels) -> tuple[Labels, NDArray[np.float64]]:
    """Targets from the distance map of each class over the whole image, and the angles they are rounded from.

    Returns:
        `(H, W)` uint8 as of `boundary_targets`, and `(H, W)` from -4 to 4, eighths of a turn; 0 without a direction.
    """
    targets = np.full(labels.shape, NO_BOUNDARY, np.uint8)
    targets[labels == IGNORE] = IGNORE
    angles = np.zeros(labels.shape)
    for label in np.unique(labels[labels != IGNORE]):
        others = (labels != label) & (labels != IGNORE)
        if not others.any():
            continue
        away = ndimage.distance_transform_edt(~others)
        on_boundary = (labels == label) & (away <= DISTANCE)
        dx, dy = (ndimage.sobel(away, axis, mode="nearest")[on_boundary] for axis in (1, 0))
        flat = np.maximum(abs(dx), abs(dy)) < FLAT
        angle = np.where(flat, 0, np.arctan2(dy, dx) * (DIRECTIONS / (2 * np.pi)))
        targets[on_boundary] = np.where(flat, NO_DIRECTION, np.rint(angle).astype(np.int64) % DIRECTIONS)
        angles[on_boundary] = angle
    return targets, angles


def halfway(ours: Labels, plain: Labels, angles: NDArray[np.float64]) -> int:
    """How many targets differ because rounding has decided between two directions.

    Raises:
        AssertionError: others differ too.
    """
    differ = ours != plain
    either = np.stack([np.floor(angles), np.ceil(angles)]).astype(np.int64) % DIRECTIONS
    rounded = differ & (abs(angles % 1 - 0.5) < HALFWAY) & (ours == either).any(0)
    wrong = int((differ & ~rounded).sum())
    assert not wrong, f"crispseg has other targets at {wrong} pixels"
    return int(rounded.sum())


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(ways: Ways, masks: Sequence[Labels], rounds: int) -> dict[str, float]:
    """Seconds that each way takes for a mask: the median of the rounds, each over all masks, after one more."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            for mask in masks:
                way(mask)
            seconds[name].append((time.perf_counter() - start) / len(masks))
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def as_table(seconds: Mapping[str, float]) -> Table:
    """Milliseconds of each way, masks a second, and its time over crispseg's."""
    table = Table("way", "ms a mask", "masks a second", "times crispseg's")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.2f}", f"{1 / value:.1f}", f"{value / seconds['crispseg']:.1f}")
    return table


def report(given: argparse.Namespace) -> None:
    """Measure and print."""
    masks = asked_masks(given)
    targets = BoundaryTargets(DISTANCE)
    rounded = sum(halfway(targets(mask), *plain_targets(mask)) for mask in masks)
    classes = statistics.mean(len(np.unique(mask[mask != IGNORE])) for mask in masks)
    console = Console()
    console.print(
        f"{len(masks)} masks of {given.width}×{given.height} pixels, on average {classes:.1f} classes in one, distance "
        f"{DISTANCE} px, 1 thread, {given.rounds} rounds, {machine()}, SciPy {version('scipy')}, "
        f"OpenCV {cv2.__version__}",
        soft_wrap=True,
    )
    console.print(as_table(measure({"SciPy, whole image": plain_targets, "crispseg": targets}, masks, given.rounds)))
    console.print(
        f"All targets are equal, but for {rounded} directions of {sum(map(np.size, masks))} pixels that are halfway "
        "between two.",
        soft_wrap=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; a user's mistake is one line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_mask_arguments(made)
    made.add_argument("--rounds", type=positive, default=9, help="after one that does not count")
    given = made.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        report(given)
    except CrispsegError as error:
        made.exit(2, f"{made.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
