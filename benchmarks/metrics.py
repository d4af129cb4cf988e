"""Time of crispseg's metrics on the CPU, compared with torchmetrics and dilation; the counts are equal.

    python benchmarks/metrics.py --threads 1

The confusion matrix is compared with torchmetrics' `MulticlassConfusionMatrix`. Boundary F is compared with dilation of
boundaries by disks, for each class and distance, as in the code of DAVIS 2016. The ground truth has 1024×2048 pixels
and 19 classes in smooth random regions; the prediction is the ground truth, warped by some pixels. Times are medians
over rounds, in turns.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.morphology import disk
from torchmetrics.classification import MulticlassConfusionMatrix

from crispseg.evaluation import BoundaryScores, SegmentationScores
from crispseg.evaluation.boundary import DISTANCES

CLASSES = 19
Labels = NDArray[np.uint8]
Way = tuple[Callable[[], object], Callable[[], NDArray[np.int64]]]
"""Update to be timed, and function that returns its counts."""


def make_pair(height: int, width: int) -> tuple[Labels, Labels]:
    """Return prediction and ground truth, `(H, W)` each."""
    random = np.random.default_rng(0)

    def noise() -> NDArray[np.float32]:
        coarse = random.standard_normal((16, 32), np.float32)
        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))

    truth = np.stack([noise() for _ in range(CLASSES)]).argmax(0).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    bent = columns + height / 256 * noise(), rows + height / 256 * noise()
    return np.asarray(cv2.remap(truth, *bent, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)), truth


def seg2bmap(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the boundary of a mask, `(H, W)`, as `seg2bmap` of DAVIS 2016 does."""
    right, below, both = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1], below[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ both)
    boundary[-1], boundary[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    boundary[-1, -1] = False
    return boundary


def matches_by_dilation(prediction: Labels, truth: Labels) -> NDArray[np.int64]:
    """Return counts `(2, 1 + distances, classes)`: boundary pixels, then matches within each distance."""
    counts = np.zeros((2, 1 + len(DISTANCES), CLASSES), np.int64)
    for index in range(CLASSES):
        found, wanted = seg2bmap(prediction == index), seg2bmap(truth == index)
        for side, (ours, theirs) in zip(counts, ((found, wanted), (wanted, found)), strict=True):
            side[0, index] = ours.sum()
            for at, distance in enumerate(DISTANCES, 1):
                side[at, index] = (ours & cv2.dilate(theirs.view(np.uint8), disk(distance)).view(np.bool_)).sum()
    return counts


def ways(prediction: Labels, truth: Labels) -> dict[str, dict[str, Way]]:
    """Return each metric by the other code and by crispseg."""
    tensors = [torch.from_numpy(each)[None].long() for each in (prediction, truth)]
    theirs, ours, boundary = MulticlassConfusionMatrix(CLASSES), SegmentationScores(CLASSES), BoundaryScores(CLASSES)
    dilated: list[NDArray[np.int64]] = []
    shape = 2, 1 + len(DISTANCES), CLASSES
    return {
        "confusion matrix": {
            "torchmetrics": (lambda: theirs.update(*tensors), lambda: theirs.compute().numpy()),
            "crispseg": (lambda: ours.update(*tensors), lambda: ours.compute().numpy()),
        },
        f"boundary F at {', '.join(map(str, DISTANCES))} px": {
            "dilation": (lambda: dilated.append(matches_by_dilation(prediction, truth)), lambda: dilated[0]),
            "crispseg": (lambda: boundary.update(*tensors), lambda: boundary.table()[1][0].reshape(shape)),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), help="height and width")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    for title, metric in ways(*make_pair(*given.size)).items():
        seconds: dict[str, list[float]] = {name: [] for name in metric}
        for update, _ in metric.values():
            update()
        (_, other), (_, ours) = metric.values()
        np.testing.assert_array_equal(other(), ours(), "the counts differ")
        for _ in range(given.rounds):
            for name, (update, _) in metric.items():
                start = time.perf_counter()
                update()
                seconds[name].append(time.perf_counter() - start)
        (name, theirs), (_, mine) = ((name, statistics.median(times)) for name, times in seconds.items())
        print(f"{title}: {name} {theirs:.4f} s, crispseg {mine:.4f} s, {theirs / mine:.1f} times as fast")


if __name__ == "__main__":
    main()
