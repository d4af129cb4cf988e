"""Pages of scores, and the confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.errors import CrispsegError
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
    """An image of the split as one or several models see it.

    Args:
        sample: image and truth.
        labels: `(H, W)` predicted class ids of each model.
        miou: mIoU of each model on this image alone, in percent.
    """

    sample: Sample
    labels: tuple[NDArray[np.uint8], ...]
    miou: tuple[float, ...]


def _examples(
    models: Sequence[AnyModel],
    dataset: SegmentationDataset,
    scores: Sequence[Scores],
    places: Iterable[int],
    protocol: Protocol | str = "whole",
) -> list[Example]:
    """Images at these places among those that `scores` have, predicted again."""
    segmenters = [Segmenter(model, protocol=protocol) for model in models]
    found = []
    for at in places:
        index = int(scores[0].ids[at])
        seen = [dataset.with_channels(each.info.in_chans, each.value_range)[index] for each in segmenters]
        labels = [each.labels(sample.image) for each, sample in zip(segmenters, seen, strict=True)]
        found.append(Example(seen[-1], tuple(labels), tuple(float(each.images.miou[at]) for each in scores)))
    return found


def examples(
    model: AnyModel, dataset: SegmentationDataset, scores: Scores, protocol: Protocol | str, count: int = EXAMPLES
) -> tuple[list[Example], list[Example]]:
    """The images with the lowest and those with the highest mIoU, from the extreme inwards; none is in both.

    An image's mIoU is over the classes in its truth or its prediction, as a split's is. Equal ones come in the split's
    order.

    Args:
        model: the model that was scored; it predicts these images again.
        dataset: the split that it was scored on.
        scores: its scores, with those of each image, as `evaluate` gives them.
        protocol: that of the scores.
        count: images of each kind, at most.
    """
    miou = scores.images.miou
    worst = np.argsort(miou, kind="stable")[:count]
    best = [at for at in np.argsort(-miou, kind="stable") if at not in worst][:count]
    one, other = (_examples([model], dataset, [scores], places, protocol) for places in (worst, best))
    return one, other


def most_changed(
    models: Sequence[AnyModel], dataset: SegmentationDataset, scores: Sequence[Scores], count: int = EXAMPLES
) -> tuple[list[Example], list[Example]]:
    """The images whose mIoU the last model raises most over the first, and those whose it lowers most.

    Images without a change are in neither; equal ones come in the split's order. Arguments are those of `examples`, of
    each model.
    """
    gains = np.nan_to_num(scores[-1].images.miou - scores[0].images.miou)
    gained = [at for at in np.argsort(-gains, kind="stable")[:count] if gains[at] > 0]
    lost = [at for at in np.argsort(gains, kind="stable")[:count] if gains[at] < 0]
    return _examples(models, dataset, scores, gained), _examples(models, dataset, scores, lost)


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
    note = "IoU, accuracy and boundary scores are in percent; ignored pixels count nowhere."
    if evaluation.bounded:
        note += f" Ranges are {LEVEL:.0f} % bootstrap intervals over images."
    confusion = draw_confusion(evaluation.scores.confusion, labels.names)
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        cards=[(name, each.alone(), each.range()) for name, each in evaluation.means()],
        note=note,
        tables=[table for table in (evaluation.class_table(), evaluation.boundary_table()) if table],
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
    """The page of a comparison, HTML; `gained` and `lost` are what `most_changed` gives, for the rest see
    `report_page`.
    """
    names, labels = [one.name for one in comparison.results], comparison.results[0].labels

    def shown(one: Example) -> Iterator[tuple[NDArray[np.uint8], str]]:
        for at, (name, predicted, miou) in enumerate(zip(names, one.labels, one.miou, strict=True)):
            change = f", {signed(miou - one.miou[0])}" if at else ""
            yield colorize(predicted, labels.palette), f"{name}: mIoU {percent(miou)}{change}"
        for name, predicted in list(zip(names, one.labels, strict=True))[1:]:
            yield difference_map(one.labels[0], predicted, one.sample.labels), f"changes, {names[0]} to {name}"

    ranked = f"By their own mIoU, from {names[0]} to {names[-1]}."
    groups = [
        _group("Images that gain most", ranked, gained, labels, shown, DIFFERENCES),
        _group("Images that lose most", ranked, lost, labels, shown, DIFFERENCES),
    ]
    note = "Bold where the interval of a change does not contain 0." if comparison.resamples else ""
    means, *others = comparison.tables()
    pairs = zip(means.rows, comparison.results, strict=True)
    rows = [row._replace(cells=[*row.cells, one.explanation]) for row, one in pairs]
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        cards=[],
        note=f"{about} {note}",
        tables=[replace(means, head=[*means.head, ""], rows=rows), *others],
        confusion=None,
        groups=groups,
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


DPI = 100
HIT, MISS, ABSENT = (33, 102, 172), (178, 24, 43), (225, 228, 232)
NUMBERED = 30
"""Most classes for which cells have numbers."""
LONGEST = 24
"""Letters of a name."""

_CELLS = ((12, 46), (30, 34), (60, 22), (255, 14))
"""Most classes, and pixels of a cell."""


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix in percent of its rows: the classes predicted for the pixels of each class.

    Right pixels are blue, wrong ones red; colours grow with the root of the share, so that 1 % can be seen. Up to 30
    classes, cells have their numbers. The row of a class that is not in the truth is grey.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        names: names of the `C` classes.

    Returns:
        `(H, W, 3)` RGB, about 300 pixels wide for 2 classes and 2300 for 150.

    Raises:
        CrispsegError: the matrix is not square, or there is not one name a class.
    """
    classes = len(names)
    if confusion.shape != (classes, classes):
        raise CrispsegError(f"a confusion matrix of shape {confusion.shape} for {classes} names; give one name a class")
    totals = confusion.sum(1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    colors = np.where(np.eye(classes, dtype=bool)[..., None], HIT, MISS)
    pixels = np.rint(255 + np.sqrt(shares)[..., None] * (colors - 255)).astype(np.uint8)
    pixels[totals[:, 0] == 0] = ABSENT
    cell = next(size for most, size in _CELLS if classes <= most)
    figure = Figure((classes * cell / DPI, classes * cell / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, interpolation="nearest")
    size = min(cell - 2, 16) * 72 / DPI
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axes.xaxis.tick_top()
    axes.set_xticks(range(classes), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), labels, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class, % of its pixels")
    for row, column in np.argwhere(confusion) if classes <= NUMBERED else ():
        share = 100 * shares[row, column]
        text = f"{share:.{1 if cell >= 40 and share < 99.95 else 0}f}"
        text = {"0": "<1", "0.0": "<0.1"}.get(text, text)
        color = "white" if share > 35 else "black"
        axes.text(column, row, text, color=color, fontsize=0.26 * cell, ha="center", va="center")
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return np.array(Image.open(file).convert("RGB"))
