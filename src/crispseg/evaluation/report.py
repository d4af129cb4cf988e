"""An evaluation as a page: scores with intervals, classes, the confusion matrix, best and worst images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from crispseg import pages
from crispseg.data import SegmentationDataset, eval_transform
from crispseg.data.base import Sample
from crispseg.evaluation.boundary import BoundaryF
from crispseg.evaluation.boundary_iou import BoundaryIoU
from crispseg.evaluation.confusion import draw_confusion
from crispseg.evaluation.per_image import LEVEL, ratio
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.wording import interval, percent
from crispseg.imaging import colorize
from crispseg.inference.protocols import Protocol, predict_logits
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.visuals import error_map

EXAMPLES = 4
"""Best and worst images that a page shows of each."""

Bounds = Mapping[str, NDArray[np.float64]]


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
    assert scores.images is not None and scores.ids is not None
    miou, accuracy = scores.images.miou, scores.images.pixel_accuracy
    worst = np.argsort(miou, kind="stable")[:count]
    best = [at for at in np.argsort(-miou, kind="stable") if at not in worst][:count]

    def example(at: int) -> Example:
        sample = dataset[int(scores.ids[at])]  # type: ignore[index]
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
    title: str,
    conditions: str,
    labels: LabelSet,
    scores: Scores,
    boundary: BoundaryF | None = None,
    boundary_iou: BoundaryIoU | None = None,
    bounds: Bounds | None = None,
    worst: Sequence[Example] = (),
    best: Sequence[Example] = (),
) -> str:
    """The page, HTML.

    Args:
        title: what was scored.
        conditions: on what and how.
        labels: names and colours of the classes.
        scores, boundary, boundary_iou: of one evaluation.
        bounds: what `intervals` gives for them.
        worst, best: what `examples` gives.
    """
    bounds = bounds or {}
    notes = "IoU, accuracy and boundary scores are in percent; ignored pixels count nowhere."
    if bounds:
        notes += f" Ranges are {LEVEL:.0f} % bootstrap intervals over images."
    blocks = [
        pages.heading(title, 1),
        pages.paragraph(conditions, soft=True),
        pages.cards(_means(scores, boundary, boundary_iou, bounds)),
        pages.paragraph(notes, soft=True),
        pages.heading("Classes"),
        _class_table(labels, scores, boundary, boundary_iou, bounds),
        pages.heading("Confusion"),
        pages.paragraph("What the pixels of each true class were predicted as, in percent of its pixels."),
        f'<div class="wide">{_confusion(scores, labels)}</div>',
    ]
    for name, some in (("Worst images", worst), ("Best images", best)):
        if some:
            maps = (each for example in some for each in (example.labels, example.sample.labels))
            blocks += [pages.heading(name), pages.paragraph(_EXPLAINED), legend_of(maps, labels)]
            blocks += [_panels(example, labels) for example in some]
    return pages.page(title, *blocks)


_EXPLAINED = (
    "By the image's own mIoU. Errors: right pixels are black, ignored ones grey, wrong ones have the colour of their "
    "true class."
)


def _means(
    scores: Scores, boundary: BoundaryF | None, boundary_iou: BoundaryIoU | None, bounds: Bounds
) -> list[tuple[str, str, str]]:
    """Name, value and interval of each mean."""
    means = [
        ("mIoU", scores.miou, bounds.get("miou")),
        ("pixel accuracy", scores.pixel_accuracy, bounds.get("pixel_accuracy")),
        ("mean accuracy", scores.mean_accuracy, bounds.get("mean_accuracy")),
        ("frequency-weighted IoU", scores.frequency_weighted_iou, bounds.get("frequency_weighted_iou")),
    ]
    if boundary:
        drawn = bounds.get("boundary_f")
        for index, (distance, mean) in enumerate(boundary.mean.items()):
            means.append((f"boundary F, {distance} px", mean, None if drawn is None else drawn[:, index]))
    if boundary_iou:
        means.append(("boundary IoU", boundary_iou.mean, bounds.get("boundary_iou")))
    return [(name, percent(value), interval(bound)) for name, value, bound in means]


def _class_table(
    labels: LabelSet,
    scores: Scores,
    boundary: BoundaryF | None,
    boundary_iou: BoundaryIoU | None,
    bounds: Bounds,
) -> str:
    head = ["class", "", "IoU", "", "accuracy", "% of truth", "% of prediction"]
    counts = scores.counts
    columns = [
        scores.accuracy,
        100 * ratio(counts.truth, counts.truth.sum()),
        100 * ratio(counts.predicted, counts.predicted.sum()),
    ]
    if boundary:
        head += [f"F {distance} px" for distance in boundary.distances]
        columns += list(boundary.f)
    if boundary_iou:
        head.append("boundary IoU")
        columns.append(boundary_iou.iou)
    intervals = bounds.get("iou")
    rows = []
    for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        bound = None if intervals is None else intervals[:, index]
        iou = float(scores.iou[index])
        shown = pages.bar(iou, bound), percent(iou), f'<span class="soft">{interval(bound)}</span>'
        rows.append(
            [pages.named(name, color), *shown, *(percent(float(column[index])) for column in columns)],
        )
    return pages.table(head, rows)


def _confusion(scores: Scores, labels: LabelSet) -> str:
    drawn = draw_confusion(scores.confusion, labels.names)
    return pages.picture(drawn, "confusion matrix", longest=max(drawn.shape))


def legend_of(maps: Iterable[NDArray[np.uint8]], labels: LabelSet) -> str:
    """The classes that label maps hold, as HTML."""
    seen = np.bincount(np.concatenate([np.unique(each) for each in maps]), minlength=256)[: len(labels)] > 0
    chosen = np.flatnonzero(seen)
    return pages.legend([labels.names[index] for index in chosen], [labels.palette[index] for index in chosen])


def _panels(example: Example, labels: LabelSet) -> str:
    image, truth, name = example.sample
    colors, true_colors = (colorize(each, labels.palette) for each in (example.labels, truth))
    errors = error_map(example.labels, truth, labels.palette)
    return pages.heading(name, 3) + pages.pictures(
        [
            (pages.picture(image[..., :3], f"{name}, image", photo=True), "image"),
            (pages.picture(true_colors, f"{name}, truth"), "truth"),
            (pages.picture(colors, f"{name}, prediction"), f"prediction: mIoU {percent(example.miou)}"),
            (pages.picture(errors, f"{name}, errors"), f"errors: {percent(100 - example.pixel_accuracy)} % of pixels"),
        ]
    )
