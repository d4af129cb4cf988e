"""A scripted user paints strokes, trains a minute, and corrects the prediction, ten times; beside it a random forest.

    taskset -c 0 python benchmarks/scripted_user.py --root DATA --work runs/user

DATA is that of `first_result.py`; nuclei have the classes background and nucleus. Models start from
ImageNet weights. The user begins with three strokes for each class of two training images. In each round, `crispseg`
trains for a minute; then five strokes follow, each in the largest wrong region without labels of the image that
`Project.suggest` names. `forest` learns from the same strokes, on multi-scale features of scikit-image. `own forest`
has its own strokes, where its prediction of random images is wrong. Rows are appended to scripted_user.csv: mIoU on val
after each round, that of forests after the last. `strokes.py` has the scores of full masks after ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from compare import head
from first_result import is_there
from numpy.typing import NDArray
from reporting import read_rows, write_rows
from skimage.feature import multiscale_basic_features
from skimage.measure import label
from sklearn.ensemble import RandomForestClassifier
from strokes import write_data

from crispseg import Project, Segmenter
from crispseg.data import FileDataset
from crispseg.io.images import read_image
from crispseg.labels import IGNORE

ROWS = Path(__file__).resolve().parent / "scripted_user.csv"
ROUNDS, STROKES, FIRST = 10, 5, 3
LENGTH, WIDTH = 30, 3  # of a stroke in pixels
STEP = 4  # scores are of each fourth pixel of each fourth row, since forests are slow
Labels = NDArray[np.uint8]
Predict = Callable[[NDArray[np.uint8], int], Labels]  # of an image's pixels at each `step` rows and columns


described = partial(multiscale_basic_features, channel_axis=-1)


def paint(labels: Labels, truth: Labels, wanted: NDArray[np.bool_], random: np.random.Generator) -> None:
    """Paint a line in the middle of the largest region of one class in which labels are wanted."""
    regions = label(np.where(wanted & (truth != IGNORE) & (labels == IGNORE), truth + 1, 0), connectivity=1)
    sizes = np.bincount(regions.ravel(), minlength=2)
    sizes[0] = 0
    inside = regions == max(sizes.argmax(), 1)
    depth = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    middle, lines = np.array(np.unravel_index(depth.argmax(), depth.shape))[::-1], []
    for angle in random.uniform(0, np.pi, 8):
        end, line = LENGTH / 2 * np.array([np.cos(angle), np.sin(angle)]), np.zeros_like(labels)
        cv2.line(line, *np.rint([middle - end, middle + end]).astype(int), 1, WIDTH)
        lines.append((line > 0) & inside)
    line = max(lines, key=np.sum)
    labels[line] = truth[line]


def forest(project: Project) -> Predict:
    """Return the prediction of a random forest that has learned the labels of a project."""
    features, classes = [], []
    for name in project.painted:
        labels = project.labels(name)
        features.append(described(read_image(project.images[name]))[labels != IGNORE])
        classes.append(labels[labels != IGNORE])
    trees = RandomForestClassifier(100, min_samples_leaf=2, random_state=0)
    trees.fit(np.concatenate(features), np.concatenate(classes))

    def predict(image: NDArray[np.uint8], step: int) -> Labels:
        values = described(image)[::step, ::step]
        return trees.predict(values.reshape(-1, values.shape[-1])).reshape(values.shape[:2])

    return predict


def segmenter(run: Path) -> Predict:
    """Return the prediction of a trained model."""
    labels = Segmenter(run).labels
    return lambda image, step: labels(image)[::step, ::step]


def miou(predict: Predict, dataset: FileDataset) -> float:
    """Return the mean IoU over the pixels of a split, in percent."""
    classes = len(dataset.labels)
    counts = np.zeros((classes, classes))
    for image, truth, _ in map(dataset.__getitem__, range(len(dataset))):
        truth = truth[::STEP, ::STEP]
        known = truth != IGNORE
        pairs = truth[known].astype(int) * classes + predict(image, STEP)[known]
        counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return float(100 * np.nanmean(counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())))


def played(method: str, project: Project, truths: dict[str, Labels], seed: int) -> tuple[list[Predict], float]:
    """Let the user paint and train; return the prediction after each round, and the seconds of all trainings."""
    random, predictions, seconds = np.random.default_rng(seed), list[Predict](), 0.0

    def correct(name: str, wanted: NDArray[np.bool_]) -> None:
        labels = project.labels(name)
        paint(labels, truths[name], wanted, random)
        project.write(name, labels)

    for name in random.choice([*truths], 2, replace=False):
        for index in np.repeat(np.unique(truths[name]), FIRST):
            correct(str(name), truths[name] == index)
    for _ in range(ROUNDS):
        start = time.monotonic()
        predictions.append(segmenter(project.train(1.0)) if method == "crispseg" else forest(project))
        seconds += time.monotonic() - start
        for _ in range(STROKES):
            name = project.suggest().name if method == "crispseg" else str(random.choice([*truths]))
            correct(name, predictions[-1](read_image(project.images[name]), 1) != truths[name])
    return predictions, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "work"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--data", nargs="+", default=["nuclei", "leaf", "aerial"])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", nargs="+", default=["crispseg", "own forest"])
    given = parser.parse_args()
    for seed, data, method in itertools.product(given.seed, given.data, given.method):
        key = {"data": data, "seed": str(seed), "method": method}
        if is_there(ROWS, key):
            continue
        source = write_data(data, given.root, given.work / data)["full"]
        train, val = source.dataset("train"), source.dataset("val")
        images = [str(pair.image) for pair in train.pairs]
        project = Project(given.work / f"{data}-{seed}-{method}", images, train.labels.names)
        truths = {pair.image.stem: train[index].labels for index, pair in enumerate(train.pairs)}
        predictions, seconds = played(method, project, truths, seed)
        by_method = {method: predictions, "forest": [forest(project)]}
        if method != "crispseg":
            by_method = {method: predictions[-1:]}
        for name, rounds in by_method.items():
            scores = " ".join(f"{miou(predict, val):.2f}" for predict in rounds)
            row = {**key, "method": name, "seconds": f"{seconds:.0f}", "miou": scores, "commit": head()}
            write_rows(ROWS, [*read_rows(ROWS), row])
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
