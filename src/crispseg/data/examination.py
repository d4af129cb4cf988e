"""The one way from a data source to what is known of it, which training, evaluation and the doctor share.

They differ in the findings that they raise, print or correct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, starmap
from pathlib import Path, PurePosixPath

from crispseg.data.dataset import DataSource, FileDataset, SegmentationDataset
from crispseg.errors import CrispsegError, Question
from crispseg.folders.checks import check, classes, files, splits, values
from crispseg.folders.examined import Examined
from crispseg.folders.facts import image_facts, mask_facts
from crispseg.folders.finding import Finding, Severity
from crispseg.folders.lookup import IdLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.report import SplitReport
from crispseg.folders.survey import Pair, PairFacts, Survey
from crispseg.folders.wording import error_of
from crispseg.io.images import as_picture
from crispseg.io.parallel import parallel

RAISED = (
    "unusable-file",
    "sizes-differ",
    "unclear-masks",
    "value-out-of-range",
    "unknown-color",
    "rgb-masks",
    "palettes-differ",
    "inverted-masks",
    "too-few-classes",
)
"""Codes of findings that stop training and evaluation."""

OF_SPLITS = [*files.FILE_CHECKS, *values.VALUE_CHECKS, *classes.CLASS_CHECKS]
"""Checks of the files of a split."""


def examine(source: DataSource, channels: int = 3, threads: int | None = None) -> Examined:
    """Read all files of a data source, despite faults; see `Examined` for `channels`."""
    if source.inferred and not source.of_instances:
        return examine_folder(source, channels, threads)
    datasets: dict[str, SegmentationDataset] = {}
    unavailable: dict[str, str] = {}
    source.label_set()  # may raise
    for split in source.splits():
        try:
            datasets[split] = source.dataset(split)
        except CrispsegError as error:
            unavailable[split] = str(error)
    if not datasets:
        raise CrispsegError(next(iter(unavailable.values())))
    shared = getattr(source, "train_on", "") == "trainval"
    return examine_datasets(datasets, channels, threads, unavailable, shared)


def pairs_of(source: DataSource) -> dict[str, Sequence[Pair]]:
    """Return the files of all splits that can be read."""
    pairs: dict[str, Sequence[Pair]] = {}
    for split in source.splits():
        with suppress(CrispsegError):
            dataset = source.dataset(split)
            pairs[split] = dataset.pairs if isinstance(dataset, FileDataset) else ()
    return pairs


def examine_folder(source: DataSource, channels: int = 3, threads: int | None = None) -> Examined:
    """Read all files of custom data."""
    pairs: dict[str, Sequence[Pair]] = {}
    unavailable: dict[str, str] = {}
    for split in source.splits():
        try:
            pairs[split] = source.pairs(split, strict=False)
        except CrispsegError as error:
            unavailable[split] = str(error)
    unpaired = source.unpaired()
    if not pairs and not any(unpaired.values()):
        raise CrispsegError(next(iter(unavailable.values())))
    survey = Survey.of(pairs, threads)
    meaning, question = None, None
    try:
        meaning = source.meaning_of(survey.masks) if survey.masks else None
    except Question as unclear:
        question = unclear
    return Examined(
        survey,
        {split: len(inside) for split, inside in pairs.items()},
        meaning,
        question,
        channels,
        unpaired,
        unavailable if pairs else {},  # else the unpaired files say why
        places_of(source, pairs),
        group_pattern(source),
    )


def examine_datasets(
    datasets: Mapping[str, SegmentationDataset],
    channels: int = 3,
    threads: int | None = None,
    unavailable: Mapping[str, str] | None = None,
    shared_on_purpose: bool = False,
) -> Examined:
    """Read all samples of splits; those that are not files are read one by one."""
    first = next(iter(datasets.values()))
    sizes = {split: len(dataset) for split, dataset in datasets.items()}
    if isinstance(first, FileDataset):
        meaning = Meaning(first.labels, first.lookup)
        survey = Survey.of({split: files_of(dataset) for split, dataset in datasets.items()}, threads)
    else:
        meaning = Meaning(first.labels, IdLookup(len(first.labels)))
        survey = Survey(tuple(chain.from_iterable(starmap(facts_of, datasets.items()))))
    return Examined(
        survey, sizes, meaning, None, channels, unavailable=unavailable or {}, shared_on_purpose=shared_on_purpose
    )


def files_of(dataset: SegmentationDataset) -> Sequence[Pair]:
    assert isinstance(dataset, FileDataset)
    return dataset.pairs


def facts_of(split: str, dataset: SegmentationDataset) -> list[PairFacts]:
    """Return the facts of samples that are not files."""

    def sample_facts(index: int) -> PairFacts:
        image, labels, name = dataset[index]
        pair = Pair(name, Path(name), Path(name))
        return PairFacts(split, pair, image_facts(name, as_picture(image)), mask_facts(labels, name))

    return list(parallel(sample_facts, range(len(dataset)), f"Reading {split}", 1))  # threads may be unsafe


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
    first = next(iter(datasets.values()))
    data = examine_datasets(datasets, first.channels if isinstance(first, FileDataset) else 3)
    findings = check(data, OF_SPLITS)
    for finding in findings:
        if finding.code in RAISED and finding.severity is Severity.ERROR:
            raise error_of(finding)
    return data, findings


def shared_images(source: DataSource) -> list[Finding]:
    """Return findings about images that splits of custom data share; the splits of public data are known."""
    if not source.inferred:
        return []
    return shared_by(source, {split: source.pairs(split, strict=False) for split in source.splits()})


def shared_by(source: DataSource, pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    """Return findings about images that splits share."""
    sizes = {split: len(inside) for split, inside in pairs.items()}
    data = Examined(Survey.of(pairs), sizes, places=places_of(source, pairs), group=group_pattern(source))
    return check(data, splits.SPLIT_CHECKS)


def group_pattern(source: DataSource) -> str | None:
    return getattr(source, "group", None)


def places_of(source: DataSource, pairs: Mapping[str, Sequence[Pair]]) -> dict[Path, PurePosixPath]:
    """Return the path of each image in the folder of images, without suffix."""
    return {pair.image: source.place(pair) for pair in chain.from_iterable(pairs.values())}
