"""An evaluation as a page: scores with intervals, classes, the confusion matrix, best and worst images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crispseg import pages
from crispseg.data import SegmentationDataset, eval_transform
from crispseg.data.base import Sample
from crispseg.evaluation.confusion import NUMBERED, cell_text, shares
from crispseg.evaluation.per_image import LEVEL, ratio
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.wording import interval, percent
from crispseg.imaging import colorize
from crispseg.inference.protocols import Protocol, predict_logits
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.visuals import error_map

EXAMPLES = 4
"""Best and worst images that a page shows of each."""


@dataclass(frozen=True)
class Example:
    """An image of the split as the model sees it.

    Args:
        sample: image and truth.
        labels: `(H, W)` predicted class ids.
        miou, pixel_accuracy: of this image alone, in percent.
    """

    sample: Sample
    labels: NDArray[np.uint8]
    miou: float
    pixel_accuracy: float


def examples(
    model: SegmentationModel, dataset: SegmentationDataset, scores: Scores, protocol: Protocol, count: int = EXAMPLES
) -> tuple[list[Example], list[Example]]:
    """The images with the lowest and those with the highest mIoU, from the extreme inwards; none is in both.

    An image's mIoU is over the classes in its truth or its prediction, as a split's is. Equal ones come in the split's
    order.

    Args:
        model: that was scored, in eval mode; it predicts these images again.
        dataset: that it was scored on.
        scores: with those of each image, as `evaluate` gives them.
        protocol: that it was scored by.
        count: of each, at most.
    """
    miou, accuracy = scores.images.miou, scores.images.pixel_accuracy
    worst = np.argsort(miou, kind="stable")[:count]
    best = [at for at in np.argsort(-miou, kind="stable") if at not in worst][:count]

    def example(at: int) -> Example:
        sample = dataset[int(scores.ids[at])]
        return Example(sample, predict_sample(model, sample, protocol), float(miou[at]), float(accuracy[at]))

    return [example(at) for at in worst], [example(at) for at in best]


def predict_sample(model: SegmentationModel, sample: Sample, protocol: Protocol) -> NDArray[np.uint8]:
    """Class ids `(H, W)`, as `evaluate` scores them."""
    info = model.info
    image = eval_transform(info.mean, info.std, info.in_chans)(sample)[0][None]  # (1, C, H, W)
    image = image.to(next(model.parameters()).device, memory_format=torch.channels_last)
    with torch.inference_mode():
        labels = predict_logits(model, image, protocol).argmax(1)[0]
    return labels.to(torch.uint8).cpu().numpy()


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
    groups = [("Worst images", worst), ("Best images", best)]
    return pages.render(
        "evaluation.html",
        title=title,
        conditions=conditions,
        means=[(name, percent(value), interval(bound)) for name, value, bound in evaluation.means()],
        level=f"{LEVEL:.0f}" if evaluation.bounds else "",
        columns=list(_class_columns(evaluation)),
        classes=_classes(evaluation),
        names=labels.names,
        confusion=_confusion_rows(evaluation.scores),
        numbered=len(labels) <= NUMBERED,
        groups=[
            (name, _legend(some, labels), [_panels(each, labels) for each in some]) for name, some in groups if some
        ],
    )


def _class_columns(evaluation: Evaluation) -> dict[str, Any]:
    """What the page tells of each class beside its IoU: name of the column → `(C,)` in percent."""
    scores, boundary = evaluation.scores, evaluation.boundary
    columns = {
        "accuracy": scores.accuracy,
        "% of truth": 100 * ratio(scores.truth, scores.truth.sum()),
        "% of prediction": 100 * ratio(scores.predicted, scores.predicted.sum()),
    }
    if boundary:
        columns |= {f"F {distance} px": f for distance, f in zip(boundary.distances, boundary.f, strict=True)}
    if evaluation.boundary_iou:
        columns["boundary IoU"] = evaluation.boundary_iou.iou
    return columns


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of the table of classes."""
    rows = []
    columns, iou = _class_columns(evaluation).values(), evaluation.scores.iou
    for index, (name, color) in enumerate(zip(evaluation.labels.names, evaluation.labels.palette, strict=True)):
        bound = evaluation.bound("iou", index)
        values = [percent(float(column[index])) for column in columns]
        shown = {"iou": percent(iou[index]), "range": interval(bound), "values": values}
        rows.append({"name": name, "color": color, "length": iou[index], "bound": bound, **shown})
    return rows


def _confusion_rows(scores: Scores) -> list[list[tuple[str, float]]]:
    """Of each cell its share of the row as text, and in percent how deep its colour is; NaN for an absent class."""
    return [[(cell_text(share), float(10 * share**0.5)) for share in row] for row in shares(scores.confusion)]


def _legend(some: Sequence[Example], labels: LabelSet) -> list[tuple[str, tuple[int, int, int]]]:
    return legend_of((each for example in some for each in (example.labels, example.sample.labels)), labels)


def legend_of(maps: Iterable[NDArray[np.uint8]], labels: LabelSet) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the classes that label maps hold."""
    seen = np.bincount(np.concatenate([np.unique(each) for each in maps]), minlength=256)[: len(labels)] > 0
    return [(labels.names[index], labels.palette[index]) for index in np.flatnonzero(seen)]


def _panels(example: Example, labels: LabelSet) -> tuple[str, list[tuple[pages.Picture, str]]]:
    """Name of the image, and its pictures with their captions."""
    image, truth, name = example.sample
    colors, true_colors = (colorize(each, labels.palette) for each in (example.labels, truth))
    errors = error_map(example.labels, truth, labels.palette)
    return name, [
        (pages.embedded(image[..., :3], f"{name}, image", photo=True), "image"),
        (pages.embedded(true_colors, f"{name}, truth"), "truth"),
        (pages.embedded(colors, f"{name}, prediction"), f"prediction: mIoU {percent(example.miou)}"),
        (pages.embedded(errors, f"{name}, errors"), f"errors: {percent(100 - example.pixel_accuracy)} % of pixels"),
    ]
