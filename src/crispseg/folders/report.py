"""Statistics of a split: sizes, and pixels of each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.config.settings import plural
from crispseg.errors import few
from crispseg.folders.facts import MaskFacts, count_values
from crispseg.folders.lookup import MaskLookup
from crispseg.folders.mask_values import MOSTLY
from crispseg.folders.meaning import Meaning
from crispseg.labels import IGNORE, LabelSet


@dataclass(frozen=True)
class SplitReport:
    """Statistics of a split."""

    split: str
    labels: LabelSet
    quarters: NDArray[np.int64]  # `(images, classes, 2, 2)` pixel counts by upper and lower, left and right quarter
    ignored: int  # number of pixels with label 255
    sizes: tuple[tuple[int, int], ...]  # `(H, W)` of each image

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.sizes)

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(classes,)` pixel counts of each class."""
        return np.asarray(self.quarters.sum((0, 2, 3)))

    @property
    def labelled(self) -> list[int]:
        """Number of labelled pixels of each image."""
        return list(self.quarters.sum((1, 2, 3)).tolist())

    @property
    def smallest(self) -> tuple[int, int]:
        """Minimum height and minimum width over all images."""
        heights, widths = zip(*self.sizes, strict=True)
        return min(heights), min(widths)

    @property
    def largest(self) -> tuple[int, int]:
        """Maximum height and maximum width over all images."""
        heights, widths = zip(*self.sizes, strict=True)
        return max(heights), max(widths)

    @property
    def lopsided(self) -> tuple[float, float]:
        """Concentration of classes in one half of the images: upper or lower, and left or right.

        It is 0 if the halves are equal on average, and 1 if they differ in the same direction in every image.
        """
        concentrations = []
        for axis in (3, 2):
            halves = self.quarters.sum(axis)  # (images, classes, 2)
            shares = halves / np.maximum(halves.sum(1, keepdims=True), 1)
            differences = shares[..., 0] - shares[..., 1]  # (images, classes)
            concentrations.append(
                float(np.abs(differences.mean(0)).sum() / max(np.abs(differences).mean(0).sum(), 1e-9))
            )
        return concentrations[0], concentrations[1]

    @property
    def description(self) -> str:
        """Number and sizes of the images."""
        sizes = dict.fromkeys(f"{height}x{width}" for height, width in (self.smallest, self.largest))
        return f"{plural(self.images, 'image')}, {' to '.join(sizes)} pixels (height x width)"

    @property
    def shorter_side(self) -> int:
        """Median of the images' shorter sides."""
        return int(np.median([min(size) for size in self.sizes]))

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that never occur."""
        return tuple(name for name, count in zip(self.labels.names, self.counts, strict=True) if count == 0)

    @property
    def shares(self) -> list[float]:
        """Share of each class in the labelled pixels."""
        return list((self.counts / max(int(self.counts.sum()), 1)).tolist())

    @property
    def void(self) -> float:
        """Share of ignored pixels."""
        return self.ignored / max(int(self.counts.sum()) + self.ignored, 1)

    @property
    def basis(self) -> list[str]:
        """Line about what shares, class weights and scores are of, if most of the pixels are unlabelled."""
        if self.void <= MOSTLY:
            return []
        return [
            f"{self.split}: {1 - self.void:.2%} of the pixels are labelled, as with strokes; "
            "shares, class weights and scores are of these pixels only"
        ]


def report_of(split: str, meaning: Meaning, masks: Sequence[MaskFacts]) -> SplitReport:
    """Return the statistics of a split; pixels without a class count as ignored."""
    classes = len(meaning.labels)
    counts = np.zeros((len(masks), classes + 1, 2, 2), np.int64)
    for index, mask in enumerate(masks):
        labels, quarters = labels_and_counts(meaning.lookup, mask)
        np.add.at(counts[index], np.minimum(labels, classes), quarters)
    ignored = int(counts[:, classes].sum())
    return SplitReport(split, meaning.labels, counts[:, :classes], ignored, tuple(mask.size for mask in masks))


def labels_and_counts(lookup: MaskLookup, mask: MaskFacts) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return the labels `(n,)` of the values of a mask, and their pixel counts by quarter `(n, 2, 2)`."""
    more_colors = mask.distinct > len(mask.values) and lookup.tolerance > 0  # than the facts have
    if lookup.by_pixel or more_colors:
        values = lookup.read(Path(mask.file))
        with suppress(ValueError):  # such as colours among numbers, whose labels are `NONE`
            labels, quarters, _ = count_values(lookup.find(values))
            return labels, quarters
    return lookup.labels_of(mask), mask.quarters


def table_lines(meaning: Meaning, reports: Sequence[SplitReport]) -> list[str]:
    """Return the table of classes: ids, names, mask values, and the share of the labelled pixels in each split."""
    values, names = values_of_labels(meaning.lookup), meaning.labels.names
    labels = [*range(len(names)), *([IGNORE] if IGNORE in values else [])]
    columns = [
        ["id", *map(str, labels)],
        ["class", *names, "ignored"],
        ["mask value", *(values.get(label, "") for label in labels)],
        *([report.split, *map(percent, [*report.shares, report.void])] for report in reports),
    ]
    rows = [*zip(*columns, strict=False)]  # the last cells are left out if no value is ignored
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{report.split}: {report.description}" for report in reports]
    lines += chain(*(report.basis for report in reports))
    for row in rows:
        number, *words = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(["", row[0].rjust(len(number)), *words]).rstrip())
    return lines


def percent(share: float) -> str:
    return f"{share:.2%}" if share else "never"


def values_of_labels(lookup: MaskLookup, most: int = 8) -> dict[int, str]:
    """Return at most `most` mask values of each class id and of 255: "7", "0-3, 9" or "[128, 64, 128]"; grey is one."""
    values: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items():
        values[label].append(value[0] if lookup.colors and not lookup.in_color else value)
    if lookup.in_color:
        return {label: few(map(list, colors), most) for label, colors in values.items()}
    return {label: few(ranges(numbers), most) for label, numbers in values.items()}


def ranges(numbers: Sequence[int]) -> list[str]:
    """Return numbers as text, runs of them as "first-last"."""
    runs = np.split(np.unique(numbers), np.flatnonzero(np.diff(np.unique(numbers)) > 1) + 1)
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def class_weights(report: SplitReport) -> NDArray[np.float32]:
    """Return weights by median frequency balancing (Eigen and Fergus, ICCV 2015), `(classes,)`.

    The frequency of a class is its share of the pixels of images that contain it. Its weight is the median frequency
    divided by its frequency. Classes that never occur have weight 0 and are not part of the median.
    """
    present = report.counts > 0
    weights = np.zeros(len(report.counts), np.float32)
    if present.any():
        per_image = report.quarters.sum((2, 3))  # (images, classes)
        support = per_image.sum(1) @ (per_image > 0)  # pixels of the images in which a class occurs
        frequency = report.counts[present] / support[present]
        weights[present] = np.median(frequency) / frequency
    return weights


def softened_weights(report: SplitReport) -> NDArray[np.float32]:
    """Return weights `(classes,)`: the inverse square root of the share of labelled pixels, 1 for the most frequent.

    Shares below 1 in 10,000 count as 1 in 10,000. Classes that never occur have weight 0.
    """
    shares = np.array(report.shares)
    return np.asarray(np.sqrt(shares.max() / np.maximum(shares, 1e-4)) * (shares > 0), np.float32)
