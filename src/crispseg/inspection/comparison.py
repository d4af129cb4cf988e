"""Where several models differ on a split: the images that gain and lose most, and the pixels that change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.data import SegmentationDataset
from crispseg.evaluation.report import Example, example, example_group
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.wording import change, number, percent, signed
from crispseg.inference import Segmenter
from crispseg.inspection.beside import SideBySide
from crispseg.io.images import colorize
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.visualization.pictures import IGNORED, RIGHT

DIFFERENCES = (
    ("right in both", RIGHT),
    ("gained: right in the second only", (33, 102, 172)),
    ("lost: right in the first only", (178, 24, 43)),
    ("wrong in both, differently", (224, 170, 50)),
    ("wrong in both, alike", (120, 120, 120)),
    ("ignored", IGNORED),
)
"""What a second prediction changes, and its colour."""


def difference_map(first: NDArray[np.uint8], second: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a second prediction changes, `(H, W, 3)` RGB in the colours of `DIFFERENCES`.

    Args:
        first, second, truth: `(H, W)` class ids; 255 in the truth is ignored.
    """
    before, after = first == truth, second == truth
    kinds = np.select(
        [truth == IGNORE, before & after, after, before, first != second], [5, 0, 1, 2, 3], 4
    )  # an index into DIFFERENCES
    picture: NDArray[np.uint8] = np.array([color for _, color in DIFFERENCES], np.uint8)[kinds]
    return picture


def most_changed(
    models: Sequence[SegmentationModel], dataset: SegmentationDataset, scores: Sequence[Scores], count: int = 4
) -> tuple[list[Example], list[Example]]:
    """The images whose mIoU the last model raises most over the first, and those whose it lowers most.

    Args:
        models: in eval mode; they predict these images again.
        dataset: that they were scored on.
        scores: scores of each model, with those of each image.
        count: images of each kind, at most; those without a change are in neither. Equal ones come in the split's
            order.
    """
    gains = np.nan_to_num(scores[-1].images.miou - scores[0].images.miou)
    gained = [at for at in np.argsort(-gains, kind="stable")[:count] if gains[at] > 0]
    lost = [at for at in np.argsort(gains, kind="stable")[:count] if gains[at] < 0]
    segmenters = [Segmenter(model) for model in models]
    groups = [[example(segmenters, dataset, scores, at) for at in group] for group in (gained, lost)]
    return groups[0], groups[1]


def comparison_page(
    title: str, conditions: str, results: SideBySide, gained: Sequence[Example], lost: Sequence[Example]
) -> str:
    """The page of scores side by side and of the images that change most, HTML."""
    names, labels = [result.name for result in results.results], results.labels

    def shown(one: Example) -> Iterator[tuple[NDArray[np.uint8], str]]:
        for index, (model, predicted, miou) in enumerate(zip(names, one.labels, one.miou, strict=True)):
            gain = f", {signed(miou - one.miou[0])}" if index else ""
            yield colorize(predicted, labels.palette), f"{model}: mIoU {percent(miou)}{gain}"
        for model, predicted in list(zip(names, one.labels, strict=True))[1:]:
            yield difference_map(one.labels[0], predicted, one.sample.labels), f"changes, {names[0]} to {model}"

    about = f"By their own mIoU, from {names[0]} to {names[-1]}."
    groups = [
        example_group(heading, about, some, labels, shown)
        for heading, some in (("Images that gain most", gained), ("Images that lose most", lost))
        if some
    ]
    for group in groups:
        group["legends"].append(DIFFERENCES)
    return results.page(title, conditions, images_head=IMAGES_HEAD, image_rows=image_rows(results), groups=groups)


# Image by image -----------------------------------------------------------------------------------------------------

IMAGES_HEAD = ("", "images higher", "lower", "alike", "mean change")


def images_as_json(results: SideBySide, dataset: SegmentationDataset) -> list[dict[str, Any]]:
    """Name and mIoU of each image that counts, one for each model."""
    scores = [each.scores for each in results.results]
    mious = zip(*(each.images.miou for each in scores), strict=True)
    return [
        {"name": dataset.name_of(int(index)), "miou": list(map(number, miou))}
        for index, miou in zip(scores[0].ids, mious, strict=True)
    ]


def image_rows(results: SideBySide) -> list[tuple[str, ...]]:
    """How many images each model but the first scores higher and lower than the first, by their own mIoU."""
    first, *others = (each.scores.images.miou for each in results.results)
    rows = []
    for result, gains, miou in zip(results.results[1:], results.gains, others, strict=True):
        counts = (miou > first).sum(), (miou < first).sum(), (miou == first).sum()
        rows.append((result.name, *map(str, counts), change(gains["image_miou"])))
    return rows
