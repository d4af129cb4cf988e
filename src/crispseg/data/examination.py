"""The one way from a data source to what is known of it, which training, evaluation and the doctor share.

They differ in the findings that they raise, print or correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from crispseg.data.dataset import DataSource, FileDataset, SegmentationDataset
from crispseg.errors import CrispsegError, Question
from crispseg.folders.checks import check, classes, files, splits, values
from crispseg.folders.examined import Examined
from crispseg.folders.facts import ImageFacts, MaskFacts, image_facts, mask_facts
from crispseg.folders.finding import Finding, Severity
from crispseg.folders.lookup import IdLookup, MaskLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.report import SplitReport
from crispseg.folders.survey import Pair, Survey
from crispseg.folders.wording import error_of
from crispseg.io.images import as_picture
from crispseg.io.parallel import parallel

Content = TypeVar("Content")

OF_SPLITS = [*files.FILE_CHECKS, *values.VALUE_CHECKS, *classes.CLASS_CHECKS]
"""Checks of the files of a split."""


def available(source: DataSource, read: Callable[[str], Content]) -> tuple[dict[str, Content], dict[str, str]]:
    """Return what can be read of each split, and why other splits cannot be read."""
    contents: dict[str, Content] = {}
    reasons: dict[str, str] = {}
    for split in source.splits():
        try:
            contents[split] = read(split)
        except CrispsegError as error:
            reasons[split] = str(error)
    return contents, reasons


def pairs_of(source: DataSource) -> Mapping[str, Sequence[Pair]]:
    """Return the files of all splits that can be read."""
    return available(source, lambda split: source.dataset(split).pairs)[0]


def examine(source: DataSource, channels: int = 3, threads: int | None = None) -> Examined:
    """Read all files of a data source, despite faults; see `Examined` for `channels`."""
    if source.inferred:
        return examine_folder(source, channels, threads)
    source.label_set()  # may raise
    datasets, reasons = available(source, source.dataset)
    if not datasets:
        raise CrispsegError(next(iter(reasons.values())))
    data = examine_datasets(datasets, channels, threads)
    return replace(data, unavailable=reasons, shared_on_purpose=getattr(source, "train_on", "") == "trainval")


def examine_folder(source: DataSource, channels: int, threads: int | None) -> Examined:
    """Read all files of custom data."""
    pairs, reasons = available(source, partial(source.pairs, strict=False))
    unpaired = source.unpaired()
    if not pairs and not any(unpaired.values()):
        raise CrispsegError(next(iter(reasons.values())))
    unavailable = reasons if pairs else {}  # else the unpaired files say why
    data = replace(surveyed(source, pairs, threads), channels=channels, unpaired=unpaired, unavailable=unavailable)
    try:
        masks = [*data.survey.masks.values()]
        return replace(data, meaning=source.meaning_of(masks) if masks else None)
    except Question as question:
        return replace(data, question=question)


def surveyed(source: DataSource, pairs: Mapping[str, Sequence[Pair]], threads: int | None = None) -> Examined:
    """Read the files of splits, and note where their images are."""
    survey = Survey.of(pairs, threads)
    places = {pair.image: source.place(pair) for _, pair in survey.pairs}
    return Examined(survey, places=places, group=getattr(source, "group", None))


def examine_datasets(
    datasets: Mapping[str, SegmentationDataset], channels: int = 3, threads: int | None = None
) -> Examined:
    """Read all samples of splits; those that are not files are read one by one."""
    first = next(iter(datasets.values()))
    lookup: MaskLookup = IdLookup(len(first.labels))
    if isinstance(first, FileDataset):
        lookup, survey = first.lookup, Survey.of({split: data.pairs for split, data in datasets.items()}, threads)
    else:
        survey = survey_of_samples(datasets)
    return Examined(survey, Meaning(first.labels, lookup), channels=channels)


def survey_of_samples(datasets: Mapping[str, SegmentationDataset]) -> Survey:
    """Return the facts of samples that are not files."""
    pairs: list[tuple[str, Pair]] = []
    images: dict[Path, ImageFacts] = {}
    masks: dict[Path, MaskFacts] = {}
    for split, dataset in datasets.items():
        read, indices = partial(sample_facts, dataset), range(len(dataset))
        for name, image, mask in parallel(read, indices, f"Reading {split}", 1):  # threads may be unsafe
            place = Path(split, name)
            pairs.append((split, Pair(name, place, place)))
            images[place], masks[place] = image, mask
    return Survey(tuple(pairs), images, masks)


def sample_facts(dataset: SegmentationDataset, index: int) -> tuple[str, ImageFacts, MaskFacts]:
    image, labels, name = dataset[index]
    return name, image_facts(name, as_picture(image)), mask_facts(labels, name)


def check_split(dataset: SegmentationDataset, split: str) -> SplitReport:
    """Read every pair of a split and count pixels.

    Raises:
        CrispsegError: the split is empty; pairs are broken, differ in size or have values without a class; or a
            training split has only one class.
    """
    data, _ = check_splits({split: dataset})
    return data.reports[0]


def check_splits(datasets: Mapping[str, SegmentationDataset]) -> tuple[Examined, list[Finding]]:
    """Return what is known of splits, and findings to print. Errors are those of `check_split`."""
    for split, dataset in datasets.items():
        if len(dataset) == 0:
            raise CrispsegError(f"the split '{split}' has no samples; check the data folders or lists")
    data = examine_datasets(datasets, next(iter(datasets.values())).channels)
    findings = check(data, OF_SPLITS)
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise error_of(finding)
    return data, findings


def shared_images(source: DataSource) -> list[Finding]:
    """Return findings about images that splits of custom data share; the splits of public data are known."""
    if not source.inferred:
        return []
    return shared_by(source, {split: source.pairs(split, strict=False) for split in source.splits()})


def shared_by(source: DataSource, pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    """Return findings about images that splits share."""
    return check(surveyed(source, pairs), splits.SPLIT_CHECKS)
