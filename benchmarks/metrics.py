"""Seconds of an update of crispseg's metrics beside those of other code, on the CPU.

    python benchmarks/metrics.py --threads 2

| metric | beside |
| --- | --- |
| confusion matrix | torchmetrics' `MulticlassConfusionMatrix` with its defaults, and with `ignore_index=255` |
| boundary F | dilation of boundaries by disks, for each class and distance, as the code of DAVIS 2016 does |

That code calls scikit-image's `binary_dilation`; the same is measured with OpenCV's `dilate`.

All get one image, by default 1024×2048 pixels with 19 classes, as int64 tensors. It is drawn, of bands, rectangles and
thin poles. Its prediction is the truth, bent by a smooth displacement (4 pixels standard deviation on 1024 rows), with
patches of a wrong class. Nothing is ignored, but for the second confusion matrix a tenth of the rows.

All ways of a metric run in one process, in turns, and their counts must be equal, or the script ends with an error.
Times are medians of the rounds after one that does not count; scikit-image, which takes minutes, runs once.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import cv2
import numpy as np
import torch
from masks import drawn_mask
from numpy.typing import NDArray
from processes import machine, parser, positive
from rich.console import Console
from rich.table import Table
from skimage.morphology import binary_dilation, disk
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from crispseg.evaluation import BoundaryScores, SegmentationScores
from crispseg.evaluation.boundary import DISTANCES
from crispseg.labels import IGNORE

CLASSES = 19
BENT = 4 / 1024  # standard deviation of the displacement, of the rows
WRONG = 1.8  # standard deviations above which smooth noise makes a wrong patch
GOALS = {"torchmetrics": 10, "scikit-image": 20, "OpenCV": 2}
"""How many times crispseg's seconds these should take at least, at the default size."""
ONCE = "scikit-image"

Labels = NDArray[np.uint8]
Dilate = Callable[[NDArray[np.bool_], int], NDArray[np.bool_]]
"""A mask (H, W) and a radius → what is within it."""


class Way(NamedTuple):
    """To compute something."""

    update: Callable[[], object]
    """What is measured."""
    counts: Callable[[], NDArray[np.int64]]
    """Whole numbers that all ways must agree on, after one update."""


# The image -----------------------------------------------------------------------------------------------------------


def make_pair(height: int, width: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Prediction and truth, `(H, W)`, of 19 classes at most."""
    truth = drawn_mask(seed, height, width, CLASSES)
    random = np.random.default_rng(seed)

    def noise() -> NDArray[np.float32]:
        coarse = random.standard_normal((32, 64), np.float32)
        smooth: NDArray[np.float32] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return smooth / smooth.std()

    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    bent = columns + BENT * height * noise(), rows + BENT * height * noise()
    prediction = cv2.remap(truth, *bent, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.where(noise() > WRONG, (prediction + 1) % CLASSES, prediction).astype(np.uint8), truth


# The ways ------------------------------------------------------------------------------------------------------------


def matrix_ways(prediction: Tensor, truth: Tensor, ignore: int | None = None) -> dict[str, Way]:
    theirs = MulticlassConfusionMatrix(CLASSES, ignore_index=ignore)
    ours, of_images = SegmentationScores(CLASSES), SegmentationScores(CLASSES, per_image=True)
    metrics = {"torchmetrics": theirs, "crispseg": ours, "crispseg, counts of each image": of_images}
    return {
        name: Way(partial(metric.update, prediction, truth), lambda metric=metric: metric.compute().numpy())
        for name, metric in metrics.items()
    }


def boundary_ways(prediction: Tensor, truth: Tensor) -> dict[str, Way]:
    """All count the boundary pixels of prediction and truth, all and those that match within each distance."""
    metric = BoundaryScores(CLASSES, DISTANCES)
    ways = {name: DilationF(dilate) for name, dilate in DILATIONS.items()}
    labels = prediction[0].numpy().astype(np.uint8), truth[0].numpy().astype(np.uint8)
    found = {name: Way(partial(way.update, *labels), lambda way=way: way.counts) for name, way in ways.items()}
    shape = 2, 1 + len(DISTANCES), CLASSES
    ours = Way(partial(metric.update, prediction, truth), lambda: metric.table()[1][0].reshape(shape))
    return {**found, "crispseg": ours}


class DilationF:
    """Matches of boundaries as `db_eval_boundary` of the DAVIS 2016 code finds them, for one class after the other."""

    def __init__(self, dilate: Dilate) -> None:
        self.dilate = dilate
        self.counts = np.zeros((2, 1 + len(DISTANCES), CLASSES), np.int64)

    def update(self, prediction: Labels, truth: Labels) -> None:
        for index in range(CLASSES):
            found, wanted = seg2bmap(prediction == index), seg2bmap(truth == index)
            for side, (ours, theirs) in zip(self.counts, ((found, wanted), (wanted, found)), strict=True):
                side[0, index] = ours.sum()
                for at, distance in enumerate(DISTANCES, 1):
                    side[at, index] = (ours & self.dilate(theirs, distance)).sum()


def seg2bmap(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The boundary of a mask, `(H, W)`, as `seg2bmap` of the DAVIS 2016 code has it at the mask's own size."""
    right, below, both = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    both[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ both)
    boundary[-1] = mask[-1] ^ right[-1]
    boundary[:, -1] = mask[:, -1] ^ below[:, -1]
    boundary[-1, -1] = False
    return boundary


def by_scikit_image(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    dilated: NDArray[np.bool_] = binary_dilation(mask, disk(radius))
    return dilated


def by_opencv(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    dilated: NDArray[np.uint8] = cv2.dilate(mask.view(np.uint8), disk(radius))
    return dilated.view(np.bool_)


DILATIONS: dict[str, Dilate] = {"scikit-image": by_scikit_image, "OpenCV": by_opencv}


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Seconds of an update by each way.

    Raises:
        AssertionError: the ways count different things.
    """
    seconds = {name: [seconds_of(way.update)] for name, way in ways.items()}
    counts = {name: way.counts() for name, way in ways.items()}
    for name, found in counts.items():
        np.testing.assert_array_equal(found, counts["crispseg"], f"{name} counts other things than crispseg")
    for _ in range(rounds):
        for name, way in ways.items():
            if name != ONCE:
                seconds[name].append(seconds_of(way.update))
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def seconds_of(update: Callable[[], object]) -> float:
    start = time.perf_counter()
    update()
    return time.perf_counter() - start


def as_table(title: str, seconds: Mapping[str, float]) -> Table:
    """Seconds of each way and what they are over crispseg's."""
    table = Table("way", "seconds", "times crispseg's", "goal", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in seconds.items():
        goal = f"at least {GOALS[name]}" if name in GOALS else ""
        table.add_row(name, f"{value:.4f}", f"{value / seconds['crispseg']:.1f}", goal)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    made = parser(__doc__)
    made.add_argument("--rounds", type=positive, default=9, help="after one that does not count")
    made.add_argument("--height", type=positive, default=1024, help="of the image, pixels")
    made.add_argument("--width", type=positive, default=2048)
    made.add_argument("--seed", type=int, default=0, help="of the image")
    given = made.parse_args(argv)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    warnings.filterwarnings("ignore", ".*binary_dilation", FutureWarning)  # its successor takes twice as long

    console = Console()
    labels = make_pair(given.height, given.width, given.seed)
    prediction, truth = (torch.from_numpy(each)[None].long() for each in labels)
    partly = truth.clone()
    partly[:, -(given.height // 10) :] = IGNORE
    console.print(
        f"{given.height}×{given.width} pixels, {len(truth.unique())} classes in the truth, {given.threads} threads, "
        f"{given.rounds} rounds, {machine()}, torchmetrics {version('torchmetrics')}, "
        f"scikit-image {version('scikit-image')}, OpenCV {cv2.__version__}",
        soft_wrap=True,
    )
    tasks = {
        "confusion matrix": matrix_ways(prediction, truth),
        "confusion matrix, a tenth ignored": matrix_ways(prediction, partly, IGNORE),
        f"boundary F at {', '.join(map(str, DISTANCES))} px": boundary_ways(prediction, truth),
    }
    for title, ways in tasks.items():
        console.print(as_table(title, measure(ways, given.rounds)))
    every = tasks[title]["crispseg"].counts().sum(-1)[:, 0]
    console.print(
        f"All counts are equal. Boundary pixels: {every[1]} of the truth, {every[0]} of the prediction.", soft_wrap=True
    )


if __name__ == "__main__":
    main()
