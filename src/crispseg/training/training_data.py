"""What a run trains on: its splits, checked, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from crispseg.data import SplitReport, check_split
from crispseg.data.bit_depth import known_range, range_line
from crispseg.data.dataset import DataSource, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.data.loading import times_an_epoch
from crispseg.data.mask_reading import Severity
from crispseg.data.split_check import few_images
from crispseg.doctor.findings import class_findings
from crispseg.errors import CrispsegError
from crispseg.io.value_range import ValueRange
from crispseg.models.info import MIN_SIDE
from crispseg.training.auto_settings import resolved
from crispseg.training.config import TrainConfig


@dataclass(frozen=True)
class TrainingData:
    """The splits of a run, and what they hold."""

    train: SegmentationDataset
    val: SegmentationDataset
    train_report: SplitReport
    val_report: SplitReport
    value_range: ValueRange | None
    """Values of 16-bit images that are black and white."""
    times: list[int]
    """How often an epoch takes each training image."""


def check_data(config: TrainConfig) -> tuple[TrainConfig, TrainingData]:
    """Check all images and masks, and replace what is auto in the settings by what the data suggest.

    Raises:
        CrispsegError: anything wrong with the data.
    """
    splits = [config.data.dataset(name).with_channels(config.model.in_chans) for name in ("train", "val")]
    value_range = known_range(splits[0])
    train_set, val_set = (split.with_channels(config.model.in_chans, value_range) for split in splits)
    reports = check_split(train_set, "train"), check_split(val_set, "val")
    config = resolved(config, reports[0])
    for report, whole in zip(reports, (config.augment.crop is None, True), strict=True):  # crops are padded
        if whole and min(report.smallest) < MIN_SIDE:
            height, width = report.smallest
            raise CrispsegError(
                f"{report.split} has images down to {height}×{width} pixels; models need at least {MIN_SIDE} a side: "
                "upscale or remove the smaller ones"
            )
    assert config.batch_size != "auto"
    times = times_an_epoch(config.augment, reports[0].sizes, config.batch_size * config.accumulate * config.processes)
    return config, TrainingData(train_set, val_set, *reports, value_range, times)


def foldable(data: DataSource) -> bool:
    """Whether the data can be divided into folds, and are not one of them."""
    return isinstance(data, Folder) and data.folds is None


def print_data(config: TrainConfig, data: TrainingData, notes: list[str], console: Console) -> None:
    """Print the mapping of ids to classes that holds for this run, and what looks odd about it."""
    reports = data.train_report, data.val_report
    print_lines(console, [*notes, *reports[0].lines(), reports[1].lines()[0]])
    found = [f"{one.message}; {one.remedy}" for one in class_findings(reports) if one.severity > Severity.INFORMATION]
    print_lines(console, [*few_images(*reports, foldable(config.data)), *found], "yellow")
    if data.value_range:
        print_lines(console, [range_line(config.data.dataset("train"), data.value_range)])
    if max(data.times) > 1:
        each = "–".join(map(str, dict.fromkeys((min(data.times), max(data.times)))))
        print_lines(console, [f"an epoch takes {each} crops of each image, {sum(data.times)} in all"])


def print_lines(console: Console, lines: Iterable[str], style: str | None = None) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
