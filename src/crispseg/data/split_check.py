"""Checks of a whole split before its use: bad files, pixel counts, and the value range of 16-bit images."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.config.settings import plural
from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.data.mask_lookup import NONE, count_values
from crispseg.errors import CrispsegError
from crispseg.io.images import image_size
from crispseg.io.opening import opened
from crispseg.io.parallel import parallel, spread, tried
from crispseg.io.value_range import ValueRange, percentile_range, sampled
from crispseg.labels import IGNORE, LabelSet

IMAGES = 64  # maximum number of sampled images, evenly spread over the split
SEEN = 10  # minimum number of images with a class for a statement about its side


def known_range(dataset: SegmentationDataset) -> ValueRange | None:
    """Return the declared range of a split, or the range of a sample of its pixels; None for 8-bit images.

    Unreadable images are skipped, because `check_split` reports them.
    """
    if not isinstance(dataset, FileDataset):
        return None
    if dataset.value_range is not None:
        return dataset.value_range

    def some_values(index: int) -> NDArray[np.uint16] | None:
        with opened(dataset.pairs[index].image) as raster:
            return sampled(raster.numbers(dataset.channels)).copy() if raster.bit_depth > 8 else None

    found = parallel(tried(some_values), spread(len(dataset), IMAGES), "Looking for 16 bits")
    kept = [values for values in found if isinstance(values, np.ndarray)]
    return percentile_range(kept) if kept else None


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
    def smallest(self) -> tuple[int, int]:
        """Minimum height and minimum width over all images."""
        return min(height for height, _ in self.sizes), min(width for _, width in self.sizes)

    @property
    def largest(self) -> tuple[int, int]:
        """Maximum height and maximum width over all images."""
        return max(height for height, _ in self.sizes), max(width for _, width in self.sizes)

    @property
    def lopsided(self) -> tuple[float, float]:
        """Concentration of classes in one half of the images: upper or lower, and left or right.

        It is 0 if the halves are equal on average, and 1 if they differ in the same direction in every image.
        """
        found = []
        for axis in (3, 2):
            halves = self.quarters.sum(axis)  # (images, classes, 2)
            shares = halves / np.maximum(halves.sum(1, keepdims=True), 1)
            differences = shares[..., 0] - shares[..., 1]  # (images, classes)
            found.append(float(np.abs(differences.mean(0)).sum() / max(np.abs(differences).mean(0).sum(), 1e-9)))
        return found[0], found[1]

    @property
    def sides(self) -> NDArray[np.float64]:
        """Mean share of each class on the left minus that on the right, over the images that contain it: `(classes,)`.

        The values are 1 to -1; classes in fewer than `SEEN` images have 0.
        """
        halves = self.quarters.sum(2)  # (images, classes, 2)
        areas = halves.sum(2)
        seen = (areas > 0).sum(0)
        means = ((halves[..., 0] - halves[..., 1]) / np.maximum(areas, 1)).sum(0) / np.maximum(seen, 1)
        return np.asarray(np.where(seen >= SEEN, means, 0.0))

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

    def lines(self) -> list[str]:
        """Return a summary to print: sizes, then id, name and share of the labelled pixels of each class."""
        sizes = [f"{height}x{width}" for height, width in (self.smallest, self.largest)]
        width = max(map(len, self.labels.names))
        images = f"{plural(self.images, 'image')}, {' to '.join(dict.fromkeys(sizes))} pixels (height x width)"
        lines = [f"{self.split}: {images}, {self.void:.1%} ignored"]
        for index, (name, share) in enumerate(zip(self.labels.names, self.shares, strict=True)):
            lines.append(f"  {index:3d}  {name:{width}}  {f'{share:6.2%}' if share else 'never occurs'}")
        return lines


# Labels `(n,)` of the values of a mask, their pixel counts by quarter `(n, 2, 2)`, and its size `(H, W)`
Counted: TypeAlias = tuple[NDArray[Any], NDArray[np.int64], tuple[int, int]]


def report_of(split: str, labels: LabelSet, masks: Sequence[Counted]) -> SplitReport:
    """Return the statistics of a split from those of its masks; pixels without a class count as ignored."""
    counts = np.zeros((len(masks), NONE + 1, 2, 2), np.int64)
    for index, (found, quarters, _) in enumerate(masks):
        np.add.at(counts[index], found, quarters)
    sizes = tuple(size for _, _, size in masks)
    return SplitReport(split, labels, counts[:, : len(labels)], int(counts[:, IGNORE:].sum()), sizes)


def check_split(dataset: SegmentationDataset, split: str) -> SplitReport:
    """Check every pair of a split and count pixels.

    Masks are decoded. Images are checked by PNG checksums or by the header and last bytes of JPEGs; other formats and
    JPEGs with unusual endings are decoded. Datasets that are not made of files are read sample by sample.

    Raises:
        CrispsegError: the split is empty; pairs are broken, differ in size or have values without a class (the first is
            named); or a training split has only one class.
    """
    if len(dataset) == 0:
        raise CrispsegError(f"the split '{split}' has no samples; check the data folders or lists")

    threads = None if isinstance(dataset, FileDataset) else 1  # others do not promise to be safe in threads
    check = tried(functools.partial(_checked, dataset))
    results = list(parallel(check, range(len(dataset)), f"Checking {split}", threads))
    if bad := [result for result in results if isinstance(result, CrispsegError)]:
        more = "; 'crispseg doctor' lists all" if len(bad) > 1 else ""
        raise CrispsegError(f"{len(bad)} of {len(dataset)} pairs in '{split}' are bad, first: {bad[0]}{more}")
    report = report_of(split, dataset.labels, [result for result in results if not isinstance(result, CrispsegError)])
    if fault := too_few_classes(report):
        raise CrispsegError(f"{fault}; check the masks and the ignored values: training needs two classes")
    return report


def too_few_classes(report: SplitReport) -> str | None:
    """Return why a split cannot be used: no labelled pixels, or one class for training. None if it is usable."""
    found = np.flatnonzero(report.counts).tolist()
    if len(found) > 1 or (found and report.split != "train"):
        return None
    held = [f"class {index}" for index in found] + [f"{IGNORE}, which means ignore"] * (report.ignored > 0)
    return f"the masks of '{report.split}' contain only {' and '.join(held)}"


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


def _checked(dataset: SegmentationDataset, index: int) -> Counted:
    if isinstance(dataset, FileDataset):
        labels, file = dataset.read_labels(index), dataset.pairs[index].image
        size = image_size(file, dataset.channels, whole=True)
        with file.open("rb") as content:
            content.seek(-min(12, file.stat().st_size), os.SEEK_END)
            complete = content.read().endswith((b"IEND\xaeB`\x82", b"\xff\xd9"))
        if size != labels.shape or not complete:
            dataset[index]  # decoding accepts a padded JPEG or a late EXIF chunk
    else:
        image, labels, name = dataset[index]
        wrong = labels[(labels >= len(dataset.labels)) & (labels != IGNORE)]
        if len(wrong):
            last = len(dataset.labels) - 1
            raise CrispsegError(f"{name}: value {wrong[0]} is out of range 0 to {last} (ignored: 255)")
        if image.shape[:2] != labels.shape:
            raise CrispsegError(f"{name}: the image is {image.shape[:2]} but the mask {labels.shape} (height, width)")
    values, quarters, _ = count_values(labels)
    return values, quarters, (labels.shape[0], labels.shape[1])
