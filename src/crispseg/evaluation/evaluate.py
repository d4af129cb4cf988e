"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from crispseg.data import LabelSet, SegmentationDataset, eval_transform
from crispseg.data.loading import eval_loader
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryF, BoundaryScores
from crispseg.evaluation.scores import Scores, SegmentationScores
from crispseg.inference.protocols import Protocol, named_protocol, predict_logits
from crispseg.inference.segmenter import usable_device
from crispseg.models import SegmentationModel


def evaluate(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    *,
    device: str | torch.device | None = None,
    workers: int = 2,
    boundary: BoundaryScores | None = None,
    protocol: Protocol | str = "whole",
    console: Console | None = None,
) -> Scores:
    """Scores from one confusion matrix over the whole split, images at their own size, in float32.

    Args:
        model: to score; left in eval mode on the device.
        dataset: with the model's classes.
        device: by default CUDA where there is one.
        workers: processes that load data.
        boundary: is given all predictions too. Its work on the CPU makes the evaluation slower.
        protocol: how the model sees an image, or a name of `PROTOCOLS`; by default whole and once.
        console: where a progress bar is shown, if it is a terminal.

    Raises:
        CrispsegError: the data have another number of classes than the model, or not its channels; no such protocol.
    """
    protocol = named_protocol(protocol)
    if len(dataset.labels) != model.info.num_classes:
        raise CrispsegError(
            f"the model has {model.info.num_classes} classes, the data {len(dataset.labels)}; they must be the same"
        )
    dataset = dataset.with_channels(model.info.in_chans)
    device = usable_device(device)
    model = model.eval().to(device).to(memory_format=torch.channels_last)
    matrix = SegmentationScores(model.info.num_classes).to(device)
    transform = eval_transform(model.info.mean, model.info.std, model.info.in_chans)
    batches: Iterable[Any] = eval_loader(dataset, transform, workers)
    console = console or Console(stderr=True)
    with torch.inference_mode():
        for images, labels in track(
            batches, "Evaluating", total=len(dataset), console=console, transient=True, disable=not console.is_terminal
        ):
            images = images.to(device, memory_format=torch.channels_last)
            prediction = predict_logits(model, images, protocol).argmax(1)
            matrix.update(prediction, labels.to(device))
            if boundary is not None:
                boundary.update(prediction.cpu(), labels)
    scores: Scores = matrix.scores()
    return scores


def score_table(labels: LabelSet, columns: dict[str, Scores], boundary: BoundaryF | None = None) -> Table:
    """A table of IoU per class, mIoU and pixel accuracy in percent, one column for each `Scores`.

    With `boundary`, of the only column's predictions, it ends in the mean boundary F-score at each distance.
    """
    table = Table()
    table.add_column("class")
    for name in columns:
        table.add_column(name, justify="right")
    for index, label in enumerate(labels.names):
        table.add_row(label, *(_percent(scores.iou[index]) for scores in columns.values()))
    table.add_section()
    table.add_row("mIoU", *(_percent(scores.miou) for scores in columns.values()), style="bold")
    table.add_row("pixel accuracy", *(_percent(scores.pixel_accuracy) for scores in columns.values()))
    for distance, mean in boundary.mean.items() if boundary else ():
        table.add_row(f"boundary F, {distance} px", _percent(mean))
    return table


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.1f}"  # NaN: the class does not occur
