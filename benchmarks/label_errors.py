"""AUROC of `crispseg label errors` on planted errors.

    python benchmarks/label_errors.py RUN [DATA]

Each val mask gets one error of each kind in turn: its two most frequent classes swapped, one of its larger objects
removed, or all labels moved by 8 pixels. AUROC is the probability that a mask with an error has a lower quality than an
unchanged one. The table also has the share of errors whose kind is named correctly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from crispseg.evaluation.recorded import named_data
from crispseg.labelling.errors import doubtful_area, judges, quality
from crispseg.labels import IGNORE

Mask = NDArray[np.uint8]


def exchanged(mask: Mask, _: np.random.Generator) -> Mask | None:
    ids, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    if len(ids) < 2:
        return None
    first, second = ids[np.argsort(-counts)[:2]]
    return np.select([mask == first, mask == second], [second, first], mask).astype(np.uint8)


def removed(mask: Mask, random: np.random.Generator) -> Mask | None:
    """Replace a large object of the second most frequent class, and its surroundings, by the most frequent class."""
    ids, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    if len(ids) < 2:
        return None
    ground, class_id = ids[np.argsort(-counts)[:2]]
    count, parts, statistics, _ = cv2.connectedComponentsWithStats((mask == class_id).astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if count < 3:
        return None
    chosen = parts == 1 + random.choice(np.flatnonzero(areas >= np.median(areas)))
    near = cv2.dilate(chosen.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where(chosen | (near & (mask != class_id)), ground, mask).astype(np.uint8)


def moved(mask: Mask, random: np.random.Generator) -> Mask | None:
    shift = [(8, 0), (-8, 0), (0, 8), (0, -8)][random.integers(4)]
    return np.roll(mask, shift, (0, 1))


ERRORS: dict[str, tuple[Callable[[Mask, np.random.Generator], Mask | None], str]] = {
    "class swapped": (exchanged, "class swapped"),
    "object missing": (removed, "object missing"),
    "moved by 8 pixels": (moved, "border"),
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run")
    made.add_argument("data", nargs="?")
    given = made.parse_args()
    settings = named_data(given.data)[0] if given.data else {}
    judge = next(candidate for candidate in judges(given.run, settings) if candidate.split == "val")
    random = np.random.default_rng(0)
    clean: list[float] = []
    planted: dict[str, list[float]] = {name: [] for name in ERRORS}
    named = dict.fromkeys(ERRORS, 0)
    for sample in (judge.dataset[index] for index in range(len(judge.dataset))):
        probabilities = judge.segmenter(sample.image).probabilities()
        clean.append(quality(probabilities, sample.labels))
        for name, (plant, kind) in ERRORS.items():
            if (wrong := plant(sample.labels, random)) is not None:
                planted[name].append(quality(probabilities, wrong))
                area = doubtful_area(probabilities, wrong)
                named[name] += area is not None and area[0] == kind
    print(f"{len(clean)} masks of val, {given.run}\n")
    print("| error | masks | AUROC | kind named |\n| --- | ---: | ---: | ---: |")
    aurocs = []
    for name, values in planted.items():
        aurocs.append(float(mannwhitneyu(clean, values).statistic) / len(clean) / len(values))
        print(f"| {name} | {len(values)} | {aurocs[-1]:.3f} | {100 * named[name] / len(values):.0f} % |")
    print(f"| mean | | {np.mean(aurocs):.3f} | |")


if __name__ == "__main__":
    main()
