"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from crispseg.data import SegmentationDataset, eval_transform
from crispseg.data.loading import eval_loader
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.boundary_iou import BoundaryIoUScores
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
    boundary_iou: BoundaryIoUScores | None = None,
    protocol: Protocol | str = "whole",
    console: Console | None = None,
) -> Scores:
    """Scores from one confusion matrix over the whole split, images at their own size, in float32.

    Args:
        model: to score; left in eval mode on the device.
        dataset: with the model's classes.
        device: by default CUDA where there is one.
        workers: processes that load data.
        boundary, boundary_iou: are given all predictions too. Their work on the CPU makes the evaluation slower.
        protocol: how the model sees an image, or a name of `PROTOCOLS`; by default whole and once.
        console: where a progress bar is shown, if it is a terminal.

    Returns:
        The scores, with those of each image for intervals; images have their index in `dataset` as number.

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
    matrix = SegmentationScores(model.info.num_classes, per_image=True).to(device)
    others = [metric for metric in (boundary, boundary_iou) if metric is not None]
    transform = eval_transform(model.info.mean, model.info.std, model.info.in_chans)
    batches: Iterable[Any] = eval_loader(dataset, transform, workers)
    console = console or Console(stderr=True)
    with torch.inference_mode():
        shown = track(
            batches, "Evaluating", total=len(dataset), console=console, transient=True, disable=not console.is_terminal
        )
        for index, (images, labels) in enumerate(shown):
            images = images.to(device, memory_format=torch.channels_last)
            prediction = predict_logits(model, images, protocol).argmax(1)
            matrix.update(prediction, labels.to(device), [index])
            if others:
                prediction = prediction.cpu()
            for metric in others:
                metric.update(prediction, labels, [index])
    scores: Scores = matrix.scores()
    return scores
