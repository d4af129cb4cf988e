"""Scores of a model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import NonNegativeInt
from rich.console import Console

from crispseg.data import DataSource, FileDataset, SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.data.loading import sample_loader, usable_workers
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import DISTANCES, TOLERANCES, BoundaryIoUScores, BoundaryScores, Empty
from crispseg.evaluation.calibration import Reliability
from crispseg.evaluation.checked import check_classes, checked_splits
from crispseg.evaluation.object_scores import ObjectScores, PanopticQuality
from crispseg.evaluation.recorded import warn_of_leaks
from crispseg.evaluation.scores import PerImageMetric, Scores, SegmentationScores
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.thin import ThinScores
from crispseg.folders.lookup import InstanceLookup
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.objects import NUMBERED, REACH, object_rules
from crispseg.inference.runtime import AnyModel, Backend, open_model
from crispseg.io.host import host_state_restored
from crispseg.io.progress import print_lines, progress


@host_state_restored()
def evaluate(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    device: str | torch.device | None = None,
    workers: int = 2,
    protocol: Protocol | str = "whole",
    reliability: Reliability | None = None,
    **metrics: PerImageMetric[Any],
) -> Scores:
    """Compute scores from one confusion matrix over the whole split, with images at their own size, in float32.

    The scored labels come from `crispseg.Segmenter`; `crispseg predict` writes the same labels.

    Args:
        model: model to score, which is not changed, or an exported file from `open_model`.
        dataset: split with the model's classes.
        device: device; the default is CUDA if available.
        workers: processes that read images.
        protocol: inference protocol, or its name in `PROTOCOLS`.
        reliability: gets the confidences of all images.
        **metrics: further metrics to update with all predictions, such as `boundary=BoundaryScores(19)`.

    Returns:
        The scores, with per-image counts for intervals; an image's number is its index in `dataset`.

    Raises:
        CrispsegError: the classes do not match (see `check_classes`); the data have other channels than the model, or
            other objects than requested.
    """
    segmenter = Segmenter(model, device, protocol=protocol)
    check_classes(model.info, dataset.labels)
    matrix = SegmentationScores(model.info.num_classes)
    workers, notes = usable_workers(workers, dataset)
    print_lines(Console(stderr=True), notes)
    samples = sample_loader(dataset.with_channels(model.info.in_chans, segmenter.value_range), workers)
    for index, sample in enumerate(progress(samples, "Evaluating", len(dataset), Console(stderr=True))):
        if reliability is None:
            labels = segmenter.labels(sample.image)
        else:
            labels, confidences = segmenter.labels_and_confidences(sample.image)
            reliability.add(confidences, labels, sample.labels)
        prediction = torch.from_numpy(labels)[None]
        truth = torch.from_numpy(sample.labels)[None]
        for metric in (matrix, *metrics.values()):
            objects = _instances(dataset, sample, metric) if isinstance(metric, ObjectScores) else ()
            metric.update(prediction, truth, [index], *objects)
    scores: Scores = matrix.scores()
    return scores


def _instances(dataset: SegmentationDataset, sample: Sample, metric: ObjectScores) -> list[torch.Tensor]:
    """Return the numbers of the true objects of an image, `(1, H, W)`, if the data have them."""
    of_numbers = isinstance(dataset, FileDataset) and isinstance(dataset.lookup, InstanceLookup)
    if of_numbers and metric.rule.index != NUMBERED.index:
        asked, numbered = dataset.labels.names[metric.rule.index], dataset.labels.names[NUMBERED.index]
        raise CrispsegError(f"the instance masks number the class {numbered}; give objects {numbered}, not {asked}")
    numbers = dataset.instances(sample.name)
    if numbers is None:
        return []
    if numbers.shape != sample.size:
        sizes = "{}x{} (height x width), but its image is {}x{}".format(*numbers.shape, *sample.size)
        remedy = "resize the instance mask with nearest-neighbour interpolation"
        raise CrispsegError(f"the instances of {sample.name} are {sizes}; {remedy}")
    return [torch.from_numpy(numbers)[None]]


def score_model(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    boundary: bool | Sequence[int] = False,
    boundary_empty: Empty = "skip",
    boundary_iou: bool = False,
    objects: str | None = None,
    objects_border: str | None = None,
    objects_min_size: NonNegativeInt | None = None,
    objects_split: bool = False,
    panoptic: bool = False,
    thin: Sequence[str] | None = None,
    curve: bool = False,
    resamples: int = 0,
    **options: Any,
) -> Evaluation:
    """Compute all scores of a model on a split.

    Args:
        model, dataset: as for `evaluate`.
        boundary: distances of boundary F-scores, in pixels, or true for `DISTANCES`.
        boundary_empty: see `BoundaryScores`.
        objects, objects_border: class whose single objects are scored, and class of the pixels between them.
        objects_min_size, objects_split: `min_size` and `split` of `ObjectRule`.
        panoptic: whether to also score these objects and the other classes as segments.
        thin: classes whose centre lines are compared, in addition to scores by width; None omits these scores.
        curve: also compute boundary F-scores at `TOLERANCES`, for a page.
        resamples: number of resamples for intervals; 0 for none.
        options: `device`, `workers`, `protocol` and `reliability` of `evaluate`.

    Raises:
        CrispsegError: an error of `evaluate`; the data do not have a class; `panoptic` without `objects`.
    """
    classes, labels = len(dataset.labels), dataset.labels
    metrics: dict[str, Any] = {}
    if boundary:
        metrics["boundary"] = BoundaryScores(classes, DISTANCES if boundary is True else boundary, boundary_empty)
    if curve:
        metrics["curve"] = BoundaryScores(classes, TOLERANCES, boundary_empty)
    if boundary_iou:
        metrics["boundary_iou"] = BoundaryIoUScores(classes)
    rules = object_rules(labels, objects, objects_border, REACH, objects_min_size, objects_split, panoptic)
    for rule in rules.values():
        metrics["objects"] = ObjectScores(classes, rule)
    if thin is not None:
        metrics["thin"] = ThinScores(classes, [(name, labels.index(name)) for name in dict.fromkeys(thin)])
    scores = evaluate(model, dataset, **metrics, **options)
    further = {key: metric.scores() for key, metric in metrics.items()}
    if panoptic:
        further["panoptic"] = PanopticQuality.of(scores, further["objects"], metrics["objects"].rule)
    return Evaluation(labels, scores, **further, resamples=resamples, reliability=options.get("reliability"))


def score_run(
    run: str,
    data: DataSource,
    split: str,
    *,
    boundary: bool | Sequence[int] = False,
    backend: Backend = "auto",
    **options: Any,
) -> tuple[AnyModel, SegmentationDataset, Evaluation]:
    """Return the model of a run, the checked split and the scores; options are those of `score_model`."""
    model = open_model(run, backend)
    (dataset,) = checked_splits([model], data, split)
    warn_of_leaks(run, data, split)
    if not model.labels_only:
        options["reliability"] = Reliability()
    scored = score_model(model, dataset, boundary=boundary, boundary_iou=boundary is not False, **options)
    return model, dataset, scored
