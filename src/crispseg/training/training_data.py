"""Training data of a run: its checked splits, and the settings that depend on them and on the machine."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from crispseg.data import Augment, DataSource, SplitReport, class_weights, softened_weights
from crispseg.data.dataset import SegmentationDataset
from crispseg.data.examination import check_splits, shared_images
from crispseg.data.loading import times_an_epoch
from crispseg.data.picture import DATA_PICTURE, draw_data
from crispseg.errors import CrispsegError
from crispseg.folders.finding import Finding
from crispseg.folders.meaning import Meaning
from crispseg.folders.report import table_lines
from crispseg.folders.survey import Survey
from crispseg.folders.wording import lines_of
from crispseg.inference.tiling import free_bytes
from crispseg.io.images import image_channels, write_image
from crispseg.io.progress import dispensable, print_lines
from crispseg.io.value_range import ValueRange
from crispseg.models.info import MIN_SIDE
from crispseg.training.config import TrainConfig
from crispseg.training.optimization import has_bf16

CROP = 192  # side of the largest crop
STEP = 32  # sides of crops are multiples of the coarsest stride
BATCH = 8  # crops of 192×192 in a batch; larger crops are fewer, so that a batch has no more pixels
MINUTES = 30.0  # default length of a run
FEW = 100  # colour augmentation is on below this number of images; in larger sets, each image is seen too seldom
RARE = 0.02  # fraction of the pixels below which a class needs weights to be found early enough
SHARE_OF_MEMORY = 0.25  # fraction of the free memory for cached images


def resolved(config: TrainConfig, train: SplitReport) -> TrainConfig:
    """Return the configuration with a value for each auto; docs/training.md explains them."""
    augment = resolved_augment(config, train)
    area = math.prod(augment.window or train.largest)
    has_rare = min((share for share in train.shares if share), default=1.0) < RARE
    values = {
        "batch_size": min(max(BATCH * CROP**2 // area, 1), BATCH),
        "precision": "bf16" if has_bf16(config) else "fp32",
        "class_weights": "softened" if has_rare and "cross_entropy" in config.losses else None,
    }
    minutes = None if config.epochs or config.iterations else config.minutes or MINUTES
    return dataclasses.replace(config, augment=augment, minutes=minutes, **_of_auto(config, values))


def resolved_augment(config: TrainConfig, train: SplitReport) -> Augment:
    """Return the augmentation with a value for each auto."""
    side = max(min(train.shorter_side, CROP) // STEP * STEP, MIN_SIDE)
    values = {
        "crop": (side, side),
        "turn": max(train.lopsided) < 0.4 + 1 / math.sqrt(train.images),  # the second term allows for chance
        "photometric": "mmseg" if train.images < FEW and config.model.in_chans in (1, 3) else False,
    }
    return dataclasses.replace(config.augment, **_of_auto(config.augment, values))


def _of_auto(settings: TrainConfig | Augment, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the settings that are auto."""
    return {key: value for key, value in values.items() if getattr(settings, key) == "auto"}


def keeps_images(config: TrainConfig, train: SplitReport) -> bool:
    """Return whether all training images fit in the memory of each worker, so that they are read only once."""
    channels = image_channels(config.model.in_chans) + 1  # plus the mask
    needed = sum(math.prod(size) for size in train.sizes) * channels * max(config.workers, 1) * config.devices
    free = free_bytes(torch.device("cpu"))
    return free is not None and needed <= SHARE_OF_MEMORY * free


def class_weights_of(config: TrainConfig, train: SplitReport) -> Tensor | None:
    """Return the class weights of cross-entropy, `(classes,)`; raise a CrispsegError if their number is wrong."""
    if config.class_weights is None:
        return None
    if isinstance(config.class_weights, str):
        weigh = {"balanced": class_weights, "softened": softened_weights}[config.class_weights]
        return torch.from_numpy(weigh(train))
    if (given := len(config.class_weights)) != len(train.labels):
        raise CrispsegError(f"class_weights has {given} values for {len(train.labels)} classes; give one per class")
    return torch.tensor(config.class_weights, dtype=torch.float32)


@dataclass(frozen=True)
class TrainingData:
    """Splits of a run, their reports, and how training images are read."""

    train: SegmentationDataset
    val: SegmentationDataset
    train_report: SplitReport
    val_report: SplitReport
    value_range: ValueRange | None  # values that become black and white in 16-bit images
    times: list[int]  # number of times an epoch uses each training image
    keep: bool  # whether training images are read only once
    meaning: Meaning  # of the masks
    findings: tuple[Finding, ...]  # about both splits
    digest: str  # of the pixels of both splits


def check_data(config: TrainConfig) -> tuple[TrainConfig, TrainingData]:
    """Check all images and masks, and replace each auto setting by a value that suits the data."""
    splits = [config.data.dataset(name).with_channels(config.model.in_chans) for name in ("train", "val")]
    value_range = splits[0].known_range()
    train_set, val_set = (split.with_channels(config.model.in_chans, value_range) for split in splits)
    examined, findings = check_splits({"train": train_set, "val": val_set})
    reports = examined.reports
    assert examined.meaning
    config = resolved(config, reports[0])
    assert config.batch_size != "auto"
    samples = config.batch_size * config.accumulate * config.processes
    times = times_an_epoch(config.augment, reports[0].sizes, samples, reports[0].labelled)
    keep = keeps_images(config, reports[0])
    digest = digest_of(examined.survey)
    return config, TrainingData(
        train_set, val_set, reports[0], reports[1], value_range, times, keep, examined.meaning, tuple(findings), digest
    )


def digest_of(survey: Survey) -> str:
    """Return a hash of the pixels of all pairs; places and names of files do not change it."""
    digests = sorted(pair.image.digest + pair.mask.digest for pair in survey.readable)
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def print_data(data: TrainingData, notes: list[str], console: Console) -> None:
    """Print the table of classes of this run, and findings about the data."""
    reports = data.train_report, data.val_report
    print_lines(console, [*notes, *table_lines(data.meaning, reports)])
    for finding in data.findings:
        print_lines(console, lines_of(finding), "yellow")
    if data.value_range == "image":
        print_lines(console, ["value_range image: the range of values of each image is scaled to 0 to 1"])
    elif data.value_range:
        low, high = data.value_range
        scaled = f"images are 16-bit: values from {low:g} to {high:g} are scaled to 0 to 1"
        print_lines(console, [f"{scaled}, in training and in prediction"])


def show_data(data: TrainingData, source: DataSource, folder: Path, console: Console) -> None:
    """Print which images the splits share, and write the picture of images and masks, which a notebook shows."""
    if console.quiet:  # in all processes but the first
        return
    for finding in shared_images(source):
        print_lines(console, lines_of(finding), "yellow")
    picture = folder / DATA_PICTURE
    with dispensable(picture, console):
        write_image(picture, draw_data(data.train, data.train_report))
        print_lines(console, [f"images with their masks: {picture}"])
        if "ipykernel" in sys.modules:
            from IPython.display import Image, display  # a notebook has it

            display(Image(str(picture)))  # type: ignore[no-untyped-call]
