"""Compare training on strokes with training on full masks, in equal minutes.

    taskset -c 0 python benchmarks/strokes.py run --root DATA --weights WEIGHTS --work runs/strokes

DATA and WEIGHTS are those of `first_result.py`; nuclei have the classes background and nucleus. Strokes are random
lines inside the regions of the classes, on `SHARE` of the pixels of each training image. A method is `full` or
`strokes`, with any options of `crispseg train`. Scores are those of the last step on the full masks of val.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
from compare import head
from first_result import data_of, folder_name, is_there, kind_of_processor, ours, read_run, scored
from numpy.typing import NDArray
from reporting import read_rows, write_rows

from crispseg.data import Folder
from crispseg.data.dataset import SegmentationDataset
from crispseg.io.files import atomic_folder
from crispseg.io.images import write_image, write_labels
from crispseg.labels import IGNORE
from crispseg.training.result import METRICS

ROWS = Path(__file__).resolve().parent / "strokes.csv"
SHARE = 0.05
LENGTH = 48  # of a stroke in pixels; strokes end two pixels before the border of a region
THICKNESS = 3  # OpenCV's; such lines are 5 pixels wide


def strokes(labels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return labels with lines inside the regions of the classes, each in proportion to its area, and 255 elsewhere."""
    drawn = np.full_like(labels, IGNORE)
    classes, counts = np.unique(labels[labels != IGNORE], return_counts=True)
    room, area = SHARE * labels.size, counts.sum()
    for index in np.argsort(counts):
        lines = lines_in(labels == classes[index], room * counts[index] / area, random)
        drawn[lines] = classes[index]
        room, area = room - lines.sum(), area - counts[index]
    return drawn


def lines_in(region: NDArray[np.bool_], room: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return random lines inside a region, until they have `room` pixels or half of its inside."""
    whole = region.astype(np.uint8)
    thin = whole & ~cv2.morphologyEx(whole, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    inside = cv2.erode(whole, np.ones((5, 5), np.uint8)) | thin
    lines, places = np.zeros_like(whole), np.argwhere(inside)[:, ::-1]
    while lines.sum() < min(room, len(places) / 2):
        angle, middle = random.uniform(0, np.pi), random.choice(places)
        end = LENGTH / 2 * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(lines, *np.rint([middle - end, middle + end]).astype(int), 1, THICKNESS)
        lines &= inside
    return lines > 0


def write_data(name: str, root: Path, out: Path) -> dict[str, Folder]:
    """Write a data set once, with full masks and with strokes in the training split; return both as custom data."""
    source, kinds = data_of(name, root / name), ("full", "strokes")
    classes = [*source.label_set().names][: 2 if source.of_instances else None]
    if not out.exists():
        with atomic_folder(out) as folder:
            for split, kind in itertools.product(("train", "val"), kinds):
                write_split(source.dataset(split), split, folder / kind, split == "train" and kind == "strokes")
    return {kind: Folder(root=out / kind, classes=classes, ignore=(IGNORE,)) for kind in kinds}


def write_split(dataset: SegmentationDataset, split: str, folder: Path, sparse: bool) -> None:
    """Write the images and masks of a split."""
    for index in range(len(dataset)):
        image, labels, name = dataset[index]
        numbers = dataset.instances(name)
        whole = labels if numbers is None else (numbers > 0).astype(np.uint8)
        mask = strokes(whole, np.random.default_rng(index)) if sparse else whole
        write_image(folder / "images" / split / f"{name}.png", image)
        write_labels(folder / "masks" / split / f"{name}.png", mask, dataset.labels.palette)


def run_missing(given: argparse.Namespace) -> None:
    """Append the rows of each training without one."""
    for seed, name, method in itertools.product(given.seed, given.data, given.method):
        key = {"data": name, "method": method, "minutes": f"{given.minutes:g}", "seed": str(seed)}
        key |= {"processor": kind_of_processor()}
        if is_there(ROWS, key):
            continue
        kind, *options = method.split()
        data, folder = write_data(name, given.root, given.work / name)[kind], given.work / folder_name(*key.values())
        ours(data, options, given.weights, given.minutes, seed, folder)
        scores = scored(read_run(folder).last, data.dataset("val"))
        row = key | {"steps": read_rows(folder / METRICS)[-1]["step"], "last_miou": f"{scores.miou:.3f}"}
        row |= {"last_boundary_f_3": f"{scores.measures['boundary_f'][-1]:.3f}", "commit": head()}
        write_rows(ROWS, [*read_rows(ROWS), row])
        print(" ".join(row.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["run"])
    for name in ("root", "weights", "work"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--data", nargs="+", default=["nuclei", "leaf", "camvid"])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", nargs="+", default=["full", "strokes"])
    parser.add_argument("--minutes", type=float, default=10.0)
    run_missing(parser.parse_args())


if __name__ == "__main__":
    main()
