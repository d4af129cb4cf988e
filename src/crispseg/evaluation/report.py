"""Pages of scores, and the confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.utilities.plot import plot_confusion_matrix

from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.evaluation.bootstrap import LEVEL, percent, signed
from crispseg.evaluation.comparison import ModelComparison
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.summary import Evaluation
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.runtime import AnyModel
from crispseg.io.images import as_picture, colorize
from crispseg.labels import IGNORE, LabelSet
from crispseg.visualization import pages
from crispseg.visualization.pictures import IGNORED, RIGHT, error_map

EXAMPLES = 4
"""Images of each kind that a page shows."""

DIFFERENCES = (
    ("right in both", RIGHT),
    ("gained: right in the second only", (33, 102, 172)),
    ("lost: right in the first only", (178, 24, 43)),
    ("wrong in both, differently", (224, 170, 50)),
    ("wrong in both, alike", (120, 120, 120)),
    ("ignored", IGNORED),
)
"""What a second prediction changes, and its colour."""


@dataclass(frozen=True)
class Example:
    """An image of the split, and for each model its labels `(H, W)` and mIoU in percent on this image alone."""

    sample: Sample
    labels: tuple[NDArray[np.uint8], ...]
    miou: tuple[float, ...]


def examples(
    models: Sequence[AnyModel],
    dataset: SegmentationDataset,
    scores: Sequence[Scores],
    protocol: Protocol | str = "whole",
    count: int = EXAMPLES,
) -> tuple[list[Example], list[Example]]:
    """The images of a model with the lowest and the highest mIoU, from the extreme inwards; none is in both.

    Of several models, the images whose mIoU the last raises most over the first, and those whose it lowers most.
    Arguments are the models, which predict again, the split and `evaluate`'s scores of each, and their protocol.
    """
    segmenters = [Segmenter(model, protocol=protocol) for model in models]
    gains = scores[-1].images.miou - (scores[0].images.miou if len(models) > 1 else 0)
    order = np.argsort(gains, kind="stable")
    groups = order[:count], order[count:][::-1][:count]
    if len(models) > 1:
        groups = order[gains[order] > 0][::-1][:count], order[gains[order] < 0][:count]

    def example(at: int) -> Example:
        index = int(scores[0].ids[at])
        seen = [dataset.with_channels(each.info.in_chans, each.value_range)[index] for each in segmenters]
        labels = [each.labels(sample.image) for each, sample in zip(segmenters, seen, strict=True)]
        return Example(seen[-1], tuple(labels), tuple(float(each.images.miou[at]) for each in scores))

    first, second = ([example(at) for at in group] for group in groups)
    return first, second


def difference_map(first: NDArray[np.uint8], second: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a second prediction changes, `(H, W, 3)` RGB in the colours of `DIFFERENCES`.

    Args:
        first, second, truth: `(H, W)` class ids; 255 in the truth is ignored.
    """
    before, after = first == truth, second == truth
    kinds = np.select([truth == IGNORE, before & after, after, before, first != second], [5, 0, 1, 2, 3], 4)
    picture: NDArray[np.uint8] = np.array([color for _, color in DIFFERENCES], np.uint8)[kinds]
    return picture


def report_page(
    title: str, conditions: str, evaluation: Evaluation, worst: Sequence[Example] = (), best: Sequence[Example] = ()
) -> str:
    """The page of an evaluation, HTML.

    Args:
        title: what was scored.
        conditions: on what and how.
        evaluation: its scores.
        worst, best: what `examples` gives.
    """
    labels = evaluation.labels

    def shown(one: Example) -> Iterator[tuple[NDArray[np.uint8], str]]:
        (predicted,), (miou,), truth = one.labels, one.miou, one.sample.labels
        wrong = 100 * float((predicted != truth)[truth != IGNORE].mean())
        yield colorize(predicted, labels.palette), f"prediction: mIoU {percent(miou)}"
        yield error_map(predicted, truth, labels.palette), f"errors: {percent(wrong)} % of pixels"

    about = (
        "By the image's own mIoU. Errors: right pixels are black, ignored ones dark grey, wrong ones have the colour "
        "of their true class, lighter where that is dark."
    )
    confusion = draw_confusion(evaluation.scores.confusion, labels.names)
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        cards=[(name, each.alone(), each.range()) for name, each in evaluation.means()],
        note=f"All scores are in percent, ranges are {LEVEL:.0f} % bootstrap intervals over images.",
        tables=[evaluation.class_table()],
        confusion=pages.embedded(confusion, "confusion matrix", longest=2560),
        groups=[_group("Worst images", about, worst, labels, shown), _group("Best images", about, best, labels, shown)],
    )


def comparison_page(
    title: str,
    conditions: str,
    comparison: ModelComparison,
    gained: Sequence[Example] = (),
    lost: Sequence[Example] = (),
    *,
    about: str = "",
) -> str:
    """The page of a comparison, HTML; `gained` and `lost` are what `examples` gives, the rest as in `report_page`."""
    names, labels = [one.name for one in comparison.results], comparison.results[0].labels

    def shown(one: Example) -> Iterator[tuple[NDArray[np.uint8], str]]:
        for at, (name, predicted, miou) in enumerate(zip(names, one.labels, one.miou, strict=True)):
            change = f", {signed(miou - one.miou[0])}" if at else ""
            yield colorize(predicted, labels.palette), f"{name}: mIoU {percent(miou)}{change}"
        for name, predicted in list(zip(names, one.labels, strict=True))[1:]:
            yield difference_map(one.labels[0], predicted, one.sample.labels), f"changes, {names[0]} to {name}"

    ranked = f"By their own mIoU, from {names[0]} to {names[-1]}."
    means, *others = comparison.tables()
    pairs = zip(means.rows, comparison.results, strict=True)
    rows = [row._replace(cells=[*row.cells, one.explanation]) for row, one in pairs]
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        cards=[],
        note=f"{about} Bold where the interval of a change does not contain 0.",
        tables=[replace(means, head=[*means.head, ""], rows=rows), *others],
        confusion=None,
        groups=[
            _group("Images that gain most", ranked, gained, labels, shown, DIFFERENCES),
            _group("Images that lose most", ranked, lost, labels, shown, DIFFERENCES),
        ],
    )


def _group(
    heading: str,
    about: str,
    some: Sequence[Example],
    labels: LabelSet,
    shown: Callable[[Example], Iterable[tuple[NDArray[np.uint8], str]]],
    *legends: Any,
) -> dict[str, Any] | None:
    """Examples under a heading, as the template shows them: behind image and truth what `shown` gives; None of none."""
    if not some:
        return None
    seen = np.unique(np.concatenate([each.ravel() for one in some for each in (one.sample.labels, *one.labels)]))
    images = []
    for one in some:
        image, truth, name = one.sample
        pictures = [(pages.embedded(as_picture(image), f"{name}, image", photo=True), "image")]
        for pixels, caption in ((colorize(truth, labels.palette), "ground truth"), *shown(one)):
            pictures.append((pages.embedded(pixels, f"{name}, {caption.partition(':')[0]}"), caption))
        images.append((name, pictures))
    classes = [(labels.names[index], labels.palette[index]) for index in seen if index < len(labels)]
    return {"heading": heading, "about": about, "legends": [classes, *legends], "images": images}


NUMBERED = 30
"""Most classes for which the cells of a confusion matrix have numbers."""


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix in percent of its rows, `(H, W, 3)` RGB: what the pixels of each class are predicted as.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        names: names of the `C` classes.
    """
    shares = torch.from_numpy(np.round(100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1), 1))
    numbered = len(names) <= NUMBERED
    side = 1 + len(names) * (0.6 if numbered else 0.16)  # inches
    figure = Figure((side, side))
    plot_confusion_matrix(shares, figure.subplots(), add_text=numbered, labels=list(names), cmap="Blues")
    file = io.BytesIO()
    figure.savefig(file, bbox_inches="tight")
    return np.array(Image.open(file).convert("RGB"))
