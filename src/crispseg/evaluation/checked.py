"""Checks that data fit the models to score."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from crispseg.data import DataSource, FileDataset, SegmentationDataset
from crispseg.data.examination import check_splits
from crispseg.errors import CrispsegError
from crispseg.folders.wording import lines_of
from crispseg.inference.runtime import AnyModel
from crispseg.io.images import image_channels
from crispseg.io.progress import print_lines
from crispseg.io.sampled_values import assumed_range
from crispseg.labels import LabelSet
from crispseg.models.info import ModelInfo


def check_classes(info: ModelInfo, labels: LabelSet) -> None:
    """Raise a CrispsegError if data and model differ in the number of classes, or a shared name has another index."""
    names, own = [*labels.names], [*info.class_names]
    if len(names) != info.num_classes:
        raise CrispsegError(f"the model has {info.num_classes} classes, the data {len(names)}; give matching data")
    for index, name in enumerate(names):
        if name in own and own.index(name) != index:
            classes = f"the data's classes are {names}, the model's {own}: '{name}' is number {index}"
            remedy = "write masks in its order, or give data.classes and data.palette in that order"
            raise CrispsegError(f"{classes} and {own.index(name)}; {remedy}")


def checked_splits(models: Sequence[AnyModel], data: DataSource, split: str) -> list[SegmentationDataset]:
    """Return the split with the channels of each model; faulty data or other classes raise a `CrispsegError`.

    Print a note if class names differ from a model's, and for omitted or interpreted files of custom data.
    """
    data = data.settled()
    whole = data.dataset(split)
    datasets, by_channels, notes = [], dict[int, SegmentationDataset](), list[str]()
    for model in models:
        info = model.info
        check_classes(info, whole.labels)
        if info.class_names not in ((), whole.labels.names):
            own = ", ".join(info.class_names)
            notes.append(f"the model's classes are {own}; those of the data have different names")
        dataset = whole.with_channels(info.in_chans, info.value_range)
        if isinstance(dataset, FileDataset) and dataset.value_range is None:
            dataset.value_range = assumed_range([pair.image for pair in dataset.pairs], dataset.channels)
        datasets.append(dataset)
        by_channels[image_channels(info.in_chans)] = dataset
    for dataset in by_channels.values():
        notes += _notes(dataset, split)
    console = Console(stderr=True)
    print_lines(console, data.notes())
    print_lines(console, dict.fromkeys(notes), "yellow")
    return datasets


def _notes(dataset: SegmentationDataset, split: str) -> list[str]:
    """Check a split, and return notes about its files and classes."""
    examined, findings = check_splits({split: dataset})
    notes = [*examined.reports[0].basis]
    for finding in findings:
        notes += lines_of(finding)
    return notes
