"""Masks that a model finds improbable, by Lad and Mueller, Estimating label quality and errors in semantic
segmentation data via any model, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.config.settings import Tree
from crispseg.data import SegmentationDataset
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.recorded import data_to_score
from crispseg.inference import Segmenter
from crispseg.io.progress import progress
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.models.saving import folds_of

TEMPERATURE = 0.1  # temperature of the softmin; at 0 only the least probable pixel would count
THIN = 5  # diameter in pixels of the disk that disagreements contain; thinner ones are ordinary at boundaries
WHOLE_AREA = 0.5  # share of a labelled area that another class must cover for the whole area to be mistaken

Kind: TypeAlias = Literal["class swapped", "object missing", "border", "scattered"]


class Judge(NamedTuple):
    """A model and a split whose masks it judges."""

    segmenter: Segmenter
    dataset: SegmentationDataset
    split: str
    names: list[str]  # names of the images, as in `data.exclude`


class Suspect(NamedTuple):
    """A mask and its most doubtful area."""

    judge: Judge
    place: int  # in the split
    quality: float  # softmin of the probabilities of all labels, 0 to 1; low for masks with errors
    kind: Kind
    """class swapped: a labelled area looks like another class; object missing: an area of a class without any label of
    it; border: an area of a class next to labels of it; scattered: no area is wide."""
    labelled: str = ""
    predicted: str = ""  # names of the area's labelled and predicted class; empty if there is no area
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, top, width and height of the area in pixels
    pixels: int = 0

    @property
    def name(self) -> str:
        """Name of the image, as in `data.exclude`."""
        return self.judge.names[self.place]

    def row(self) -> tuple[object, ...]:
        """Return the cells of a table."""
        area = self.kind, self.labelled, self.predicted, *self.box, self.pixels
        return self.name, self.judge.split, round(self.quality, 4), *area


def quality(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return the softmin of the probabilities `(C, H, W)` of labels `(H, W)`, 0 to 1; 1 if all pixels are ignored.

    It is the mean of the probabilities p, weighted by exp((1 - p) / `TEMPERATURE`) (Lad and Mueller, §3).
    """
    given = _of_labels(probabilities, labels)[labels != IGNORE].astype(np.float64)
    return float(np.average(given, weights=np.exp((1 - given) / TEMPERATURE))) if given.size else 1.0


def doubtful_area(
    probabilities: NDArray[np.float32], labels: NDArray[np.uint8]
) -> tuple[Kind, int, int, NDArray[np.bool_]] | None:
    """Return the kind, labelled class, predicted class and pixels `(H, W)` of the most doubtful area, None without one.

    An area is connected, has one predicted class other than the labels, and is not thin. The most doubtful one has the
    largest sum of differences between the probabilities of the two.
    """
    predicted, given = probabilities.argmax(0), _of_labels(probabilities, labels)
    gain = np.where((predicted != labels) & (labels != IGNORE), probabilities.max(0) - given, 0)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THIN, THIN))
    largest, doubtful = 0.0, None
    for label in np.unique(predicted[gain > 0]).tolist():
        wide = cv2.morphologyEx(((predicted == label) & (gain > 0)).astype(np.uint8), cv2.MORPH_OPEN, disk)
        count, areas = cv2.connectedComponents(wide)
        sums = np.bincount(areas.ravel(), gain.ravel(), count)
        sums[0] = 0
        if sums.max() > largest:
            largest, doubtful = sums.max(), (label, areas == sums.argmax())
    if doubtful is None:
        return None
    label, area = doubtful
    own = int(np.bincount(labels[area]).argmax())
    parts = cv2.connectedComponents((labels == own).astype(np.uint8))[1]
    whole = np.isin(parts, np.unique(parts[area & (labels == own)]))
    near = cv2.dilate(area.astype(np.uint8), disk) > 0
    if area.sum() >= WHOLE_AREA * whole.sum():
        kind: Kind = "class swapped"
    else:
        kind = "border" if (labels[near] == label).any() else "object missing"
    return kind, own, label, area


def _of_labels(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities of the labels `(H, W)`; of class 0 for ignored pixels."""
    index = np.where(labels == IGNORE, 0, labels)[None].astype(np.intp)
    return np.asarray(np.take_along_axis(probabilities, index, 0)[0])


def judges(run: str, given: Tree, device: str | None = None) -> Iterator[Judge]:
    """Yield what judges each split: the run for val and train, or each fold of a cross-validation for its val split.

    Errors are those of `data_to_score`, `checked_splits` and `Segmenter`.

    Args:
        run: a run's folder, or a folder of folds.
        given: settings of the data; those of the run by default.
    """
    runs, splits = [run], {"val", "train"}
    if folds := folds_of(run):
        runs, splits = [*map(str, folds)], {"val"}
    for place in runs:
        data, _ = data_to_score(place, given)
        model = SegmentationModel.from_pretrained(place)
        segmenter = Segmenter(model, device)
        for split in sorted(splits & {*data.splits()}, reverse=True):  # val first
            (dataset,) = checked_splits([model], data, split)
            names = data.names_to_record(data.pairs(split))
            names = names or [*map(dataset.name_of, range(len(dataset)))]
            yield Judge(segmenter, dataset, split, names)


def label_errors(judge: Judge, console: Console | None = None) -> list[Suspect]:
    """Return all masks of a split, the least probable first."""
    labels, suspects = judge.dataset.labels, []
    for index in progress(range(len(judge.dataset)), f"Reading {judge.split}", console=console):
        sample = judge.dataset[index]
        probabilities = judge.segmenter(sample.image).probabilities()
        doubtful: Any = ("scattered",)
        if area := doubtful_area(probabilities, sample.labels):
            kind, *classes, where = area
            box = cv2.boundingRect(where.astype(np.uint8))
            doubtful = (kind, *(labels.names[index] for index in classes), box, int(where.sum()))
        suspects.append(Suspect(judge, index, quality(probabilities, sample.labels), *doubtful))
    return sorted(suspects, key=lambda suspect: suspect.quality)
