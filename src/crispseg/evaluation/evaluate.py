"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from crispseg.data import SegmentationDataset
from crispseg.data.loading import sample_loader
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryF, BoundaryScores
from crispseg.evaluation.boundary_iou import BoundaryIoU, BoundaryIoUScores
from crispseg.evaluation.per_image import LEVEL, RESAMPLES
from crispseg.evaluation.scores import Scores, SegmentationScores
from crispseg.evaluation.wording import interval, percent
from crispseg.inference import Protocol, Segmenter
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel


def evaluate(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    *,
    device: str | torch.device | None = None,
    workers: int = 2,
    boundary: BoundaryScores | None = None,
    boundary_iou: BoundaryIoUScores | None = None,
    protocol: Protocol | str = "whole",
    console: Console | None = None,
) -> Scores:
    """Scores from one confusion matrix over the whole split, images at their own size, in float32.

    Labels are those of `crispseg.Segmenter`: what is scored is what `crispseg predict` writes.

    Args:
        model: the model to score; it stays as it is.
        dataset: the split, with the model's classes.
        device: by default CUDA where there is one.
        workers: processes that read images.
        boundary, boundary_iou: are given all predictions too. Their work on the CPU makes the evaluation slower.
        protocol: how the model sees an image, or a name of `PROTOCOLS`; by default whole and once.
        console: where a progress bar is shown, if it is a terminal.

    Returns:
        The scores, with those of each image for intervals; images have their index in `dataset` as number.

    Raises:
        CrispsegError: the data have another number of classes than the model, or not its channels; no such protocol.
    """
    segmenter = Segmenter(model, device, protocol=protocol)
    if len(dataset.labels) != model.info.num_classes:
        raise CrispsegError(
            f"the model has {model.info.num_classes} classes, the data {len(dataset.labels)}; they must be the same"
        )
    matrix = SegmentationScores(model.info.num_classes, per_image=True)
    metrics = [matrix, *(metric for metric in (boundary, boundary_iou) if metric is not None)]
    samples = sample_loader(dataset.with_channels(model.info.in_chans), workers)
    console = console or Console(stderr=True)
    shown = track(
        samples, "Evaluating", total=len(dataset), console=console, transient=True, disable=not console.is_terminal
    )
    for index, sample in enumerate(shown):
        prediction, labels = (torch.from_numpy(each)[None] for each in (segmenter.labels(sample.image), sample.labels))
        for metric in metrics:
            metric.update(prediction, labels, [index])
    scores: Scores = matrix.scores()
    return scores


def score_table(
    labels: LabelSet,
    columns: dict[str, Scores],
    boundary: BoundaryF | None = None,
    boundary_iou: BoundaryIoU | None = None,
    bounds: dict[str, NDArray[np.float64]] | None = None,
) -> Table:
    """A table of IoU per class and of the means in percent, one column for each `Scores`.

    With `boundary` or `boundary_iou`, of the only column's predictions, it ends in their means. `bounds`, of
    `intervals`, make a last column.
    """
    table = Table()
    table.add_column("class")
    for name in columns:
        table.add_column(escape(name), justify="right")
    if bounds:
        table.add_column(f"{LEVEL:.0f} %", justify="right")

    def row(name: str, values: Iterable[float], low_high: Any = None, style: str | None = None) -> None:
        shown = [interval(low_high)] if low_high is not None else []
        table.add_row(escape(name), *map(percent, values), *shown, style=style)

    def of(name: str, at: int | None = None) -> Any:
        return None if not bounds else bounds[name] if at is None else bounds[name][:, at]

    for index, label in enumerate(labels.names):
        row(label, (scores.iou[index] for scores in columns.values()), of("iou", index))
    table.add_section()
    means = {
        "mIoU": "miou",
        "mean accuracy": "mean_accuracy",
        "frequency-weighted IoU": "frequency_weighted_iou",
        "pixel accuracy": "pixel_accuracy",
    }
    for name, key in means.items():
        style = "bold" if key == "miou" else None
        row(name, (getattr(scores, key) for scores in columns.values()), of(key), style)
    for index, (distance, mean) in enumerate(boundary.mean.items() if boundary else ()):
        row(f"boundary F, {distance} px", [mean], of("boundary_f", index))
    if boundary and len(boundary.distances) > 1:
        row("boundary F, mean", [boundary.mean_over_distances], of("boundary_f_mean"))
    if boundary_iou:
        row("boundary IoU", [boundary_iou.mean], of("boundary_iou"))
    return table


def intervals(
    scores: Scores,
    boundary: BoundaryF | None = None,
    boundary_iou: BoundaryIoU | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, NDArray[np.float64]]:
    """Bootstrap intervals over images, low and high, of scores of one evaluation.

    Returns:
        `(2,)` for `miou`, `mean_accuracy`, `frequency_weighted_iou`, `pixel_accuracy`, `boundary_f_mean` and
        `boundary_iou`, `(2, C)` for `iou` and `accuracy`, `(2, D)` for `boundary_f`, as far as there are such scores.
        Nothing for `resamples` 0, and of fewer than two images.
    """
    bounds: dict[str, NDArray[np.float64]] = {}
    if not resamples:
        return bounds
    if scores.images is not None and len(scores.images) > 1:
        bounds |= scores.images.intervals(resamples)
    if boundary and len(boundary.per_image) > 1:
        drawn = boundary.intervals(resamples)
        bounds |= {"boundary_f": drawn["mean"], "boundary_f_mean": drawn["mean_over_distances"]}
    if boundary_iou and len(boundary_iou.images) > 1:
        bounds["boundary_iou"] = boundary_iou.intervals(resamples)["mean"]
    return bounds
