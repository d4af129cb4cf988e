"""HTML pages of scores, and the confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.utilities.plot import plot_confusion_matrix

from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.evaluation.bootstrap import LEVEL, Estimate, percent
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.summary import DISTANCE, Evaluation, ModelComparison
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.runtime import AnyModel
from crispseg.io.images import as_picture, colorize
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.visualization import pages
from crispseg.visualization.pictures import drawn, error_legend, error_map, for_display

CONFUSED = 5  # percent of the pixels of a class from which a confusion is named
EXAMPLES = 4  # number of images in each group of a page

ABOUT = (
    "Images are ranked by the mean IoU of the classes in their ground truth. Errors are drawn over the image in grey."
)


Thumbnail: TypeAlias = tuple[str, str, pages.Picture]
"""Name, address and small picture of an image in a list."""


@dataclass(frozen=True)
class Example:
    """Image of the split, with each model's labels `(H, W)` and `Counts.miou_of_truth` on it."""

    sample: Sample
    labels: tuple[NDArray[np.uint8], ...]
    miou: tuple[float, ...]


Groups: TypeAlias = tuple[Sequence[Example], Sequence[Example]]


def examples(
    models: Sequence[AnyModel],
    dataset: SegmentationDataset,
    scores: Sequence[Scores],
    protocol: Protocol | str = "whole",
    count: int = EXAMPLES,
) -> Groups:
    """Return the images with a model's lowest and highest `Counts.miou_of_truth`, extremes first, without overlap.

    For several models, it returns the images with the largest gain and the largest loss from the first model to the
    last. The models predict these images again; `scores` are the results of `evaluate`.
    """
    segmenters = [Segmenter(model, protocol=protocol) for model in models]
    mious = np.array([score.images.miou_of_truth for score in scores])  # (models, images)
    if len(models) > 1:
        gains = mious[-1] - mious[0]
        order = np.argsort(gains, kind="stable")
        groups = order[gains[order] > 0][::-1][:count], order[gains[order] < 0][:count]
    else:
        order = np.argsort(mious[0], kind="stable")
        groups = order[:count], order[count:][::-1][:count]

    def example(place: int) -> Example:
        labels = []
        for segmenter in segmenters:
            sample = dataset.with_channels(segmenter.info.in_chans, segmenter.value_range)[int(scores[0].ids[place])]
            labels.append(segmenter.labels(sample.image))
        return Example(sample, tuple(labels), tuple(mious[:, place].tolist()))

    first, second = groups
    return [*map(example, first)], [*map(example, second)]


def thumbnails(model: AnyModel, dataset: SegmentationDataset, indices: NDArray[np.int64]) -> list[Thumbnail]:
    """Return images of a split for the list on a page."""
    samples, images = dataset.with_channels(model.info.in_chans, model.info.value_range), []
    for index in indices.tolist():
        image, _, name = samples[index]
        picture = pages.embedded(for_display(as_picture(image)), name, photo=True, longest=pages.THUMBNAIL)
        images.append((name, "", picture))
    return images


def report_page(
    title: str, conditions: str, evaluation: Evaluation, groups: Groups = ((), ()), images: Sequence[Thumbnail] = ()
) -> str:
    """Return the HTML page of an evaluation with `examples` and `thumbnails`; `conditions` are data and settings."""
    labels, objects, curve = evaluation.labels, evaluation.objects, evaluation.curve
    columns, charts = {"mIoU": evaluation.scores.images.miou_of_truth}, dict[str, pages.Picture]()
    if curve:
        line = ("plot", curve.distances, curve.measures()["boundary_f"], ".-")
        charts["Boundary F against tolerance"] = pages.chart("F of tolerances", line, xlabel="pixels", ylabel="F, %")
    if evaluation.reliability:
        pixels, correct, confidence = evaluation.reliability.bins.values()
        lines = ("axline", (0, 0), (1, 1)), ("plot", confidence, correct, ".-"), ("bar", confidence, pixels)
        y = "% correct; bars: % of pixels"
        charts["Reliability"] = pages.chart("correct by confidence", *lines, xlabel="confidence, %", ylabel=y)
    if objects:
        columns |= {"true objects": objects.truth, "predicted": objects.predicted}
        marks = ("axline", (0, 0), (1, 1)), ("plot", objects.truth, objects.predicted, "o")
        charts["Counts of objects"] = pages.chart("counts", *marks, xlabel="true in an image", ylabel="predicted")
    confusion = draw_confusion(evaluation.scores.confusion, labels.names)
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        verdict=verdict(evaluation.scores, labels.names),
        means=evaluation.means(),
        note=f"All scores are in percent, ranges are {LEVEL:.0f} % bootstrap intervals over images. {pages.BRIGHTENED}",
        tables=[evaluation.class_table()],
        charts=charts,
        confusion=pages.embedded(confusion, "confusion matrix", longest=2560),
        groups=[_group("Worst images", groups[0], labels), _group("Best images", groups[1], labels)],
        head=[*columns],
        images=[*zip(images, np.column_stack([*columns.values()]).tolist(), strict=False)],
    )


def verdict(scores: Scores, names: Sequence[str]) -> str:
    """Return a sentence about the class with the lowest IoU, and the class that it is confused with."""
    if np.isnan(scores.iou).all():
        return ""
    worst = int(np.nanargmin(scores.iou))
    sentence = f"{names[worst]} has the lowest IoU, {percent(scores.iou[worst])}"
    shares = 100 * scores.confusion[worst] / max(scores.truth[worst], 1)
    shares[worst] = 0
    other = int(shares.argmax())
    if shares[other] >= CONFUSED:
        sentence += f": it is taken for {names[other]} ({shares[other]:.0f} %)"
    return f"{sentence}."


def comparison_page(title: str, conditions: str, comparison: ModelComparison, groups: Groups = ((), ())) -> str:
    """Return the HTML page of a comparison, with the groups of `examples`. See `report_page` for the rest."""
    names, labels = [result.name for result in comparison.results], comparison.results[0].labels
    means, *others = comparison.tables()
    rows = [[*row, result.explanation] for row, result in zip(means.rows, comparison.results, strict=True)]
    return pages.render(
        "scores.html",
        title=title,
        conditions=conditions,
        note=f"A change is bold if its interval does not contain 0. {pages.BRIGHTENED * any(groups)}",
        tables=[replace(means, head=[*means.head, ""], rows=rows), *others],
        charts={
            f"Gains of {name}": forest(gains, labels.names)
            for name, gains in zip(names[1:], comparison.gains, strict=True)
        },
        groups=[
            _group(f"Images that gain most from {names[0]} to {names[-1]}", groups[0], labels, names),
            _group(f"Images that lose most from {names[0]} to {names[-1]}", groups[1], labels, names),
        ],
    )


def forest(gains: Mapping[str, Estimate], names: Sequence[str]) -> pages.Picture:
    """Draw gains in mIoU, boundary F and the IoU of classes with their intervals."""
    scores = [gains[key] for key in ("miou", "boundary_f", "iou")]
    values = np.hstack([score.value for score in scores])
    ends = np.hstack([score.interval.reshape(2, -1) for score in scores])
    rows = ["mIoU", f"boundary F, {DISTANCE} px", *(f"IoU of {name}" for name in names)]
    marks = ("errorbar", values, rows, None, abs(ends - values), "o"), ("axvline", 0)
    size, downwards = (5, 1 + len(rows) / 4), (len(rows) - 0.5, -0.5)
    return pages.chart("gains with intervals", *marks, size=size, xlabel="gain, percentage points", ylim=downwards)


def _group(
    heading: str, some: Sequence[Example], labels: LabelSet, models: Sequence[str] = ("prediction",)
) -> dict[str, Any]:
    """Return examples under a heading in the structure of the template."""
    present, kinds, images = set[int](), dict[str, Color](), []
    for example in some:
        image, truth, name = for_display(as_picture(example.sample.image)), example.sample.labels, example.sample.name
        present.update(np.unique([truth, *example.labels]).tolist())
        drawn = [(colorize(truth, labels.palette), "ground truth")]
        for model, predicted, miou in zip(models, example.labels, example.miou, strict=True):
            wrong = 100 * float((predicted != truth)[truth != IGNORE].mean())
            drawn.append((colorize(predicted, labels.palette), f"{model}: mIoU {percent(miou)}"))
            errors = error_map(image, predicted, truth, labels)
            kinds |= error_legend(errors)
            drawn.append((errors, f"{model}, errors: {percent(wrong)} % of pixels"))
        pictures = [(pages.embedded(image, f"{name}, image", photo=True), "image")]
        pictures += [(pages.embedded(pixels, f"{name}, {text.partition(':')[0]}"), text) for pixels, text in drawn]
        images.append((name, pictures))
    classes = [labels.legend[index] for index in sorted(present - {IGNORE})]
    return {"heading": heading, "about": ABOUT, "classes": [*classes, *kinds.items()], "images": images}


MOST_NUMBERED = 30  # largest number of classes for which the cells of a confusion matrix show numbers


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix, pixel counts `(C, C)`, in percent of its rows, the true classes, as RGB `(H, W, 3)`."""
    shares = torch.from_numpy(np.round(100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1), 1))
    numbered = len(names) <= MOST_NUMBERED
    side = 1 + len(names) * (0.6 if numbered else 0.16)  # inches
    figure = Figure((side, side))
    plot_confusion_matrix(shares, figure.subplots(), add_text=numbered, labels=list(names), cmap="Blues")
    return drawn(figure, bbox_inches="tight")
