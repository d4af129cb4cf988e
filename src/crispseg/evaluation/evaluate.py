"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from crispseg.data import InstanceDataset, SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.data.loading import sample_loader
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.boundary_iou import BoundaryIoUScores
from crispseg.evaluation.object_scores import ObjectScores
from crispseg.evaluation.scores import Scores, SegmentationScores
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.thin import ThinScores
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.objects import NUMBERED, ObjectRule
from crispseg.inference.runtime import AnyModel


def evaluate(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    device: str | torch.device | None = None,
    workers: int = 2,
    boundary: BoundaryScores | None = None,
    boundary_iou: BoundaryIoUScores | None = None,
    objects: ObjectScores | None = None,
    thin: ThinScores | None = None,
    protocol: Protocol | str = "whole",
    console: Console | None = None,
) -> Scores:
    """Scores from one confusion matrix over the whole split, images at their own size, in float32.

    Labels are those of `crispseg.Segmenter`: what is scored is what `crispseg predict` writes.

    Args:
        model: the model to score, which stays as it is, or an exported file of `open_model`.
        dataset: the split, with the model's classes.
        device: by default CUDA where there is one.
        workers: processes that read images.
        boundary, boundary_iou, thin: are given all predictions too. Their work on the CPU makes the evaluation slower.
        objects: is given all predictions too, and the instances of data that have them.
        protocol: how the model sees an image, or a name of `PROTOCOLS`; by default whole and once.
        console: where a progress bar is shown, if it is a terminal.

    Returns:
        The scores, with those of each image for intervals; images have their index in `dataset` as number.

    Raises:
        CrispsegError: the data have another number of classes than the model, or not its channels; their instances are
            of another class than the objects that are asked for, or of another size than their image; no such protocol.
    """
    segmenter = Segmenter(model, device, protocol=protocol)
    if len(dataset.labels) != model.info.num_classes:
        raise CrispsegError(
            f"the model has {model.info.num_classes} classes, the data {len(dataset.labels)}; they must be the same"
        )
    if objects is not None and isinstance(dataset, InstanceDataset) and objects.rule.index != NUMBERED.index:
        asked, numbered = (dataset.labels.names[at] for at in (objects.rule.index, NUMBERED.index))
        raise CrispsegError(f"the data number the objects of class {numbered}; score these, not {asked}")
    matrix = SegmentationScores(model.info.num_classes, per_image=True)
    metrics = [matrix, *(metric for metric in (boundary, boundary_iou, thin) if metric is not None)]
    samples = sample_loader(dataset.with_channels(model.info.in_chans, segmenter.value_range), workers)
    console = console or Console(stderr=True)
    shown = track(
        samples, "Evaluating", total=len(dataset), console=console, transient=True, disable=not console.is_terminal
    )
    for index, sample in enumerate(shown):
        prediction, labels = (torch.from_numpy(each)[None] for each in (segmenter.labels(sample.image), sample.labels))
        for metric in metrics:
            metric.update(prediction, labels, [index])
        if objects is not None:
            objects.update(prediction, labels, [index], _instances(dataset, sample))
    scores: Scores = matrix.scores()
    return scores


def score_model(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    boundary: Sequence[int] = (),
    boundary_iou: bool = False,
    objects: ObjectRule | None = None,
    thin: Sequence[str] | None = None,
    resamples: int = 0,
    name: str = "",
    explanation: str = "",
    **options: Any,
) -> Evaluation:
    """All scores of a model on a split.

    Args:
        model: the model to score, which stays as it is, or an exported file of `open_model`.
        dataset: the split, with the model's classes.
        boundary: distances of boundary F-scores, in pixels.
        boundary_iou: compute Boundary IoU.
        objects: which pixels make up the single objects to score.
        thin: classes whose centre lines are compared, besides the scores by width; None for no scores of thin things.
        resamples: for bootstrap intervals; 0 for none.
        name, explanation: of the model, for tables of several.
        options: `device`, `workers`, `protocol` and `console` of `evaluate`.

    Raises:
        CrispsegError: as `evaluate`; a class that the data do not have.
    """
    classes, labels = len(dataset.labels), dataset.labels
    lines = None if thin is None else [(each, labels.index(each)) for each in dict.fromkeys(thin)]
    metrics: dict[str, Any] = {
        "boundary": BoundaryScores(classes, boundary) if boundary else None,
        "boundary_iou": BoundaryIoUScores(classes) if boundary_iou else None,
        "objects": None if objects is None else ObjectScores(classes, objects),
        "thin": None if lines is None else ThinScores(classes, lines),
    }
    scores = evaluate(model, dataset, **metrics, **options)
    found = {key: metric.scores() for key, metric in metrics.items() if metric is not None}
    return Evaluation(labels, scores, **found, resamples=resamples, name=name, explanation=explanation)


def _instances(dataset: SegmentationDataset, sample: Sample) -> Tensor | None:
    """The numbers of the true objects `(1, H, W)`, where the data have them."""
    numbers = dataset.instances(sample.name)
    if numbers is None:
        return None
    if numbers.shape != sample.size:
        sizes = [f"{height}x{width}" for height, width in (numbers.shape, sample.size)]
        raise CrispsegError(
            f"the instances of {sample.name} are {sizes[0]} (height x width), but its image is {sizes[1]}; give "
            "instances of the image's size"
        )
    return torch.from_numpy(numbers)[None]
