"""Where several models differ on a split: the images that gain and lose most, and the pixels that change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from crispseg import pages
from crispseg.data import SegmentationDataset
from crispseg.data.base import Sample
from crispseg.evaluation.report import legend_of, predict_sample
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.wording import change, number, percent, signed
from crispseg.imaging import colorize
from crispseg.inference.protocols import WHOLE
from crispseg.inspection.beside import SideBySide
from crispseg.labels import IGNORE, LabelSet
from crispseg.models import SegmentationModel
from crispseg.visuals import IGNORED, RIGHT

GAINED, LOST, OTHERWISE_WRONG, BOTH_WRONG = (33, 102, 172), (178, 24, 43), (224, 170, 50), (120, 120, 120)
"""Colours of `difference_map`: blue, red, yellow, grey."""

DIFFERENCES = (
    ("right in both", RIGHT),
    ("gained: right in the second only", GAINED),
    ("lost: right in the first only", LOST),
    ("wrong in both, differently", OTHERWISE_WRONG),
    ("wrong in both, alike", BOTH_WRONG),
    ("ignored", IGNORED),
)

EXAMPLES = 4
"""Images that gain and that lose most, of each at most so many."""


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


@dataclass(frozen=True)
class Changed:
    """An image on which models differ.

    Args:
        sample: image and truth.
        labels: `(H, W)` predicted class ids of each model.
        miou: of the image, of each model, in percent.
    """

    sample: Sample
    labels: tuple[NDArray[np.uint8], ...]
    miou: tuple[float, ...]


def most_changed(
    models: Sequence[SegmentationModel], dataset: SegmentationDataset, scores: Sequence[Scores], count: int = EXAMPLES
) -> tuple[list[Changed], list[Changed]]:
    """The images whose mIoU the last model raises most over the first, and those whose it lowers most.

    Args:
        models: in eval mode; they predict these images again.
        dataset: that they were scored on.
        scores: of each, with those of each image.
        count: of each, at most; images without a change are in neither. Equal ones come in the split's order.
    """
    per_image = np.stack([each.images.miou for each in scores])  # (models, N)
    ids = scores[0].ids
    gains = np.nan_to_num(per_image[-1] - per_image[0])

    def changed(at: int) -> Changed:
        parts = []
        sample = dataset[int(ids[at])]
        for model in models:
            sample = dataset.with_channels(model.info.in_chans)[int(ids[at])]
            parts.append(predict_sample(model, sample, WHOLE))
        return Changed(sample, tuple(parts), tuple(map(float, per_image[:, at])))

    gained = [changed(at) for at in np.argsort(-gains, kind="stable")[:count] if gains[at] > 0]
    lost = [changed(at) for at in np.argsort(gains, kind="stable")[:count] if gains[at] < 0]
    return gained, lost


def changed_pictures(changed: Changed, names: Sequence[str], labels: LabelSet) -> list[tuple[pages.Picture, str]]:
    """Image, truth, each prediction, and what each but the first changes, with captions."""
    image, truth, name = changed.sample
    entries = [
        (pages.embedded(image[..., :3], f"{name}, image", photo=True), "image"),
        (pages.embedded(colorize(truth, labels.palette), f"{name}, truth"), "truth"),
    ]
    for index, (model, predicted, miou) in enumerate(zip(names, changed.labels, changed.miou, strict=True)):
        colors = colorize(predicted, labels.palette)
        gain = f", {signed(miou - changed.miou[0])}" if index else ""
        entries.append((pages.embedded(colors, f"{name}, {model}"), f"{model}: mIoU {percent(miou)}{gain}"))
    for model, predicted in list(zip(names, changed.labels, strict=True))[1:]:
        difference = difference_map(changed.labels[0], predicted, truth)
        entries.append((pages.embedded(difference, f"{name}, changes by {model}"), f"changes, {names[0]} to {model}"))
    return entries


def comparison_page(
    title: str,
    conditions: str,
    results: SideBySide,
    gained: Sequence[Changed] = (),
    lost: Sequence[Changed] = (),
) -> str:
    """The page of scores side by side and of the images that change most, HTML."""
    names, labels = [result.name for result in results.results], results.labels
    groups = []
    for heading, some in (("Images that gain most", gained), ("Images that lose most", lost)):
        if some:
            about = f"By their own mIoU, from {names[0]} to {names[-1]}."
            maps = (each for changed in some for each in (changed.sample.labels, *changed.labels))
            entries = [(changed.sample.name, changed_pictures(changed, names, labels)) for changed in some]
            groups.append((heading, about, [legend_of(maps, labels), DIFFERENCES], entries))
    images = {"head": IMAGES_HEAD, "note": IMAGES_NOTE, "rows": image_rows(results)}
    return results.page(title, conditions, images=images, groups=groups)


# Image by image -----------------------------------------------------------------------------------------------------

IMAGES_HEAD = ("", "images higher", "lower", "alike", "mean change")
IMAGES_NOTE = "Images by their own mIoU, over the classes in their truth or their prediction."


def image_table(results: SideBySide) -> Table:
    """`image_rows` for the terminal."""
    table = Table(title="Images, by their own mIoU", title_justify="left")
    for name in IMAGES_HEAD:
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in image_rows(results):
        table.add_row(*map(escape, row))
    return table


def images_as_json(results: SideBySide, dataset: SegmentationDataset) -> list[dict[str, Any]]:
    """Name and mIoU of each image that counts, one for each model."""
    miou = _image_miou(results)  # (models, N)
    return [
        {"name": dataset.name_of(int(index)), "miou": [number(value) for value in miou[:, at]]}
        for at, index in enumerate(results.results[0].scores.ids)
    ]


def image_rows(results: SideBySide) -> list[tuple[str, ...]]:
    """How many images each model but the first scores higher and lower than the first, by their own mIoU."""
    first, *others = _image_miou(results)
    rows = []
    for result, gains, miou in zip(results.results[1:], results.gains, others, strict=True):
        counts = (miou > first).sum(), (miou < first).sum(), (miou == first).sum()
        rows.append((result.name, *map(str, counts), change(gains["image_miou"])))
    return rows


def _image_miou(results: SideBySide) -> NDArray[np.float64]:
    """`(models, N)`."""
    return np.stack([each.scores.images.miou for each in results.results])
