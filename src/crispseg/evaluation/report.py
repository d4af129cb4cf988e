"""An evaluation as a page: scores with intervals, classes, the confusion matrix, best and worst images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.evaluation.per_image import LEVEL, ratio
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.wording import interval, percent
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.exported import Network
from crispseg.io.images import as_picture, colorize
from crispseg.labels import IGNORE, LabelSet
from crispseg.visualization import pages
from crispseg.visualization.charts import draw_confusion
from crispseg.visualization.pictures import error_map

EXAMPLES = 4
"""Best and worst images that a page shows of each."""


@dataclass(frozen=True)
class Example:
    """An image of the split as one or several models see it.

    Args:
        sample: image and truth.
        labels: `(H, W)` predicted class ids of each model.
        miou: mIoU of each model on this image alone, in percent.
    """

    sample: Sample
    labels: tuple[NDArray[np.uint8], ...]
    miou: tuple[float, ...]


def example(
    segmenters: Sequence[Segmenter], dataset: SegmentationDataset, scores: Sequence[Scores], at: int
) -> Example:
    """One of the images that were scored, predicted again.

    Args:
        segmenters: the models that were scored, by the protocol of the scores.
        dataset: the split that they were scored on.
        scores: the scores of each model, with those of each image, as `evaluate` gives them.
        at: index of the image among those that `scores` has.
    """
    index = int(scores[0].ids[at])
    seen = [dataset.with_channels(segmenter.info.in_chans, segmenter.value_range)[index] for segmenter in segmenters]
    labels = (segmenter.labels(sample.image) for segmenter, sample in zip(segmenters, seen, strict=True))
    return Example(seen[-1], tuple(labels), tuple(float(each.images.miou[at]) for each in scores))


def examples(
    model: Network, dataset: SegmentationDataset, scores: Scores, protocol: Protocol, count: int = EXAMPLES
) -> tuple[list[Example], list[Example]]:
    """The images with the lowest and those with the highest mIoU, from the extreme inwards; none is in both.

    An image's mIoU is over the classes in its truth or its prediction, as a split's is. Equal ones come in the split's
    order. There are at most `count` of each kind; for the other arguments see `example`.
    """
    miou = scores.images.miou
    worst = np.argsort(miou, kind="stable")[:count]
    best = [at for at in np.argsort(-miou, kind="stable") if at not in worst][:count]
    segmenter = Segmenter(model, protocol=protocol)
    groups = [[example([segmenter], dataset, [scores], at) for at in group] for group in (worst, best)]
    return groups[0], groups[1]


def example_group(
    heading: str,
    about: str,
    some: Sequence[Example],
    labels: LabelSet,
    shown: Callable[[Example], Iterable[tuple[NDArray[np.uint8], str]]],
) -> dict[str, Any]:
    """What the templates show of some examples under one heading: the classes' legend and the pictures of each.

    Args:
        heading, about: text.
        some: the examples.
        labels: names and colours of the classes.
        shown: what comes behind image and truth, pictures `(H, W, 3)` RGB and their captions.
    """
    maps = (np.unique(each) for one in some for each in (one.sample.labels, *one.labels))
    seen = np.bincount(np.concatenate(list(maps)), minlength=256)[: len(labels)] > 0
    images = []
    for one in some:
        image, truth, name = one.sample
        pictures = [(pages.embedded(as_picture(image), f"{name}, image", photo=True), "image")]
        for pixels, caption in ((colorize(truth, labels.palette), "ground truth"), *shown(one)):
            pictures.append((pages.embedded(pixels, f"{name}, {caption.partition(':')[0]}"), caption))
        images.append((name, pictures))
    classes = [(labels.names[index], labels.palette[index]) for index in np.flatnonzero(seen)]
    return {"heading": heading, "about": about, "legends": [classes], "images": images}


def report_page(
    title: str, conditions: str, evaluation: Evaluation, worst: Sequence[Example] = (), best: Sequence[Example] = ()
) -> str:
    """The page, HTML.

    Args:
        title: what was scored.
        conditions: on what and how.
        evaluation: its scores.
        worst, best: what `examples` gives.
    """
    labels = evaluation.labels

    def shown(one: Example) -> list[tuple[NDArray[np.uint8], str]]:
        (predicted,), (miou,), truth = one.labels, one.miou, one.sample.labels
        wrong = 100 * float((predicted != truth)[truth != IGNORE].mean())
        return [
            (colorize(predicted, labels.palette), f"prediction: mIoU {percent(miou)}"),
            (error_map(predicted, truth, labels.palette), f"errors: {percent(wrong)} % of pixels"),
        ]

    return pages.render(
        "evaluation.html",
        title=title,
        conditions=conditions,
        means=[(name, percent(value), interval(bound)) for name, value, bound in evaluation.means()],
        level=f"{LEVEL:.0f}" if evaluation.bounds else "",
        columns=list(_class_columns(evaluation)),
        boundary_columns=list(_boundary_columns(evaluation)),
        classes=_classes(evaluation),
        confusion=pages.embedded(
            draw_confusion(evaluation.scores.confusion, labels.names), "confusion matrix", longest=2560
        ),
        groups=[
            example_group(name, _EXPLAINED, some, labels, shown)
            for name, some in (("Worst images", worst), ("Best images", best))
            if some
        ],
    )


_EXPLAINED = (
    "By the image's own mIoU. Errors: right pixels are black, ignored ones dark grey, wrong ones have the colour of "
    "their true class, lighter where that is dark."
)


def _class_columns(evaluation: Evaluation) -> dict[str, Any]:
    """What the page tells of each class beside its IoU: name of the column → `(C,)` in percent."""
    scores = evaluation.scores
    return {
        "accuracy": scores.accuracy,
        "% of truth": 100 * ratio(scores.truth, scores.truth.sum()),
        "% of prediction": 100 * ratio(scores.predicted, scores.predicted.sum()),
    }


def _boundary_columns(evaluation: Evaluation) -> dict[str, Any]:
    """What the page tells of the boundaries of each class, in the same way; nothing where they were not scored."""
    columns: dict[str, Any] = {}
    if boundary := evaluation.boundary:
        columns |= {f"F {distance} px": f for distance, f in zip(boundary.distances, boundary.f, strict=True)}
    if evaluation.boundary_iou:
        columns["boundary IoU"] = evaluation.boundary_iou.iou
    return columns


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of the tables of classes."""
    rows = []
    iou = evaluation.scores.iou
    tables = {"values": _class_columns(evaluation), "boundary": _boundary_columns(evaluation)}
    for index, (name, color) in enumerate(zip(evaluation.labels.names, evaluation.labels.palette, strict=True)):
        bound = evaluation.bound("iou", index)
        cells = {key: [percent(float(each[index])) for each in table.values()] for key, table in tables.items()}
        shown = {"iou": percent(iou[index]), "range": interval(bound)}
        rows.append({"name": name, "color": color, "length": iou[index], "bound": bound, **shown, **cells})
    return rows
