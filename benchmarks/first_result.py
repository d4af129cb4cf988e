"""What a newcomer gets: `crispseg train` told nothing but the data, beside the plain loops that people write.

    python benchmarks/first_result.py run --nuclei NUCLEI --aerial AERIAL --weights WEIGHTS --work runs/first
    python benchmarks/first_result.py report

NUCLEI holds `images/` and `instances/`, AERIAL `images/` and `masks/`; WEIGHTS are ImageNet weights of the backbone.
Every training has one processor and the same minutes of it. The loops are `plain_loop` around networks of
segmentation-models-pytorch; those called "same" get the loss, optimiser, schedule and augmentation that `crispseg
train` chose; what they lack of it are its network, images seen 1.5 times as large, early stages that stay as they are,
and bf16 with channels last. `run` does what is missing in first_result.csv, so it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from compare import head
from reporting import COLUMNS, mean_and_sd
from results import Row, read_rows, write_rows
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from crispseg.cli.parsing import parse_training
from crispseg.data import Augment, Folder, check_split, train_transform
from crispseg.data.free import LISTS
from crispseg.data.loading import train_loader
from crispseg.evaluation.evaluate import evaluate
from crispseg.models import SegmentationModel, create_model
from crispseg.plugins import load_plugins
from crispseg.training.fitting import class_weights_of
from crispseg.training.losses import build_loss
from crispseg.training.optimization import build_optimizer, learning_rate_factor
from crispseg.training.result import METRICS

HERE = Path(__file__).parent
ROWS = HERE / "first_result.csv"
BACKBONE = "tf_efficientnet_lite0"
CLASSES = {
    "nuclei": ["background", "nucleus", "border"],
    "aerial": ["building", "land", "road", "vegetation", "water"],
}
LOOPS = {"loop_fpn": "smp_fpn", "loop_unet": "smp_unet", "same_fpn": "smp_fpn", "same_unet": "smp_unet"}
OURS = "crispseg"
METHODS = [OURS, *LOOPS]
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


# Data ----------------------------------------------------------------------------------------------------------------


def data_of(name: str, root: Path) -> Folder:
    """The data set as data of one's own, with the splits that come with crispseg."""
    lists = {f"{split}_list": LISTS / f"{name}_{split}.txt" for split in ("train", "val")}
    kind = "instances" if name == "nuclei" else "masks"
    data = Folder(images=root / "images", classes=CLASSES[name], **{kind: root / kind}, **lists)
    return data.settled()


def fewer(data: Folder, images: int, seed: int, file: Path) -> Folder:
    """The same data with so many training images, chosen by the seed; their names are written to `file`."""
    train, val = ([pair.name for pair in data.pairs(split)] for split in ("train", "val"))
    chosen = np.random.default_rng(seed).choice(train, images, replace=False)
    val_file = file.with_name("every_val.txt")
    for path, names in ((file, chosen), (val_file, val)):
        path.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    return replace(data, train_list=file, val_list=val_file)


# Trainings -----------------------------------------------------------------------------------------------------------


def plain_loop(data: Folder, network: str, weights: Path, minutes: float, seed: int) -> tuple[SegmentationModel, int]:
    """What is written in an hour: AdamW at 1e-3, cross-entropy, random crops of 192, left-right flips, batches of 8."""
    augment = Augment(crop=(192, 192), scale=(1, 1), turn=False, photometric=False)
    model, batches = begin(data, network, weights, augment, 8, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    steps = 0
    for images, labels, _ in for_minutes(minutes, batches):
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return model.eval(), steps


def same_loop(data: Folder, network: str, weights: Path, minutes: float, run: Path) -> tuple[SegmentationModel, int]:
    """That loop with the loss, optimiser, schedule, batches and augmentation that a run of ours has."""
    config = parse_training([str(run / "config.yaml")], {}, prog="", description="")
    assert isinstance(config.batch_size, int)
    model, batches = begin(data, network, weights, config.augment, config.batch_size, config.seed)
    report = check_split(data.dataset("train"), "train")
    criterion = build_loss(config.losses, config.hard_fraction, class_weights_of(config, report))
    optimizer = build_optimizer(model, config)
    behind = [0.0]
    schedule = LambdaLR(optimizer, learning_rate_factor(config, lambda step: behind[-1]))
    for images, labels, passed in for_minutes(minutes, batches):
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        behind.append(passed)
        schedule.step()
    return model.eval(), len(behind) - 1


def begin(
    data: Folder, network: str, weights: Path, augment: Augment, batch_size: int, seed: int
) -> tuple[SegmentationModel, DataLoader[Any]]:
    """The network with its backbone's weights, in training mode, and the batches."""
    torch.manual_seed(seed)
    train = data.dataset("train")
    model = create_model(network, num_classes=len(train.labels), backbone=BACKBONE, pretrained=weights).train()
    transform = train_transform(augment, model.info.mean, model.info.std)
    return model, train_loader(train, transform, batch_size, 0, seed=seed)


def for_minutes(minutes: float, batches: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Batches, epoch after epoch, with the share of the minutes that has passed, until they are over."""
    start = time.monotonic()
    for epoch in itertools.count():
        batches.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for images, labels in batches:
            passed = (time.monotonic() - start) / (60 * minutes)
            if passed >= 1:
                return
            yield images, labels, passed


def ours(data: Folder, weights: Path, minutes: float, seed: int, out: Path) -> None:
    """`crispseg train`, told the data, where the weights lie, how long and where to; what was stopped is begun anew."""
    shutil.rmtree(out, ignore_errors=True)
    own = [f"--model.pretrained={weights}", f"--minutes={minutes:g}", f"--seed={seed}", f"--out={out}"]
    command = [sys.executable, "-m", "crispseg", "train", *folder_flags(data), *own]
    with out.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def folder_flags(data: Folder) -> list[str]:
    """What `crispseg train` is told of data of one's own."""
    keys = ("images", "masks", "instances", "train_list", "val_list")
    paths = [f"--data.{key}={value}" for key in keys if (value := getattr(data, key))]
    return ["--data=folder", *paths, f"--data.classes={json.dumps(data.classes)}"]


# Rows ----------------------------------------------------------------------------------------------------------------


def one(name: str, data: Folder, weights: Path, minutes: float, seed: int, folder: Path, processor: int) -> Row:
    """Train and score; `folder` is for the run and, where it is one of ours, already there for those called "same"."""
    os.sched_setaffinity(0, {processor})
    torch.set_num_threads(1)
    own = folder / OURS
    before = cpu_seconds()
    if name == OURS:
        ours(data, weights, minutes, seed, own)
        model, steps = SegmentationModel.from_pretrained(own), int(read_rows(own / METRICS)[-1]["step"])
    elif name.startswith("same"):
        if not (own / METRICS).is_file():
            raise SystemExit(f"first_result.py: {name} needs the run {own}, whose recipe it takes; remove its row")
        model, steps = same_loop(data, LOOPS[name], weights, minutes, own)
    else:
        model, steps = plain_loop(data, LOOPS[name], weights, minutes, seed)
    seconds = cpu_seconds() - before
    val = data.dataset("val")
    scores = evaluate(model, val, device="cpu", workers=0)
    classes = {label: f"{iou:.2f}" for label, iou in zip(val.labels.names, scores.iou, strict=True)}
    return {
        "miou": f"{scores.miou:.3f}",
        "steps": str(steps),
        "processor_seconds": f"{seconds:.0f}",
        "classes": json.dumps(classes),
    }


def cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in WHO)


def run_missing(given: argparse.Namespace) -> None:
    """Append a row for each training that has none, those of ours first."""
    load_plugins([str(HERE / "peers.py")])
    sources = {name: data_of(name, getattr(given, name)) for name in given.data}
    for minutes, seed, images, source, name in itertools.product(
        given.minutes, given.seeds, given.images, given.data, given.methods
    ):
        key = {"data": source, "images": str(images), "minutes": f"{minutes:g}", "method": name, "seed": str(seed)}
        rows = read_rows(ROWS)
        if any(key.items() <= row.items() for row in rows):
            continue
        folder = given.work / f"{source}-{images}-{minutes:g}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        data = sources[source] if images == "all" else fewer(sources[source], int(images), seed, folder / "train.txt")
        row = key | one(name, data, given.weights, minutes, seed, folder, given.processor) | {"commit": head()}
        write_rows(ROWS, [*read_rows(ROWS), row])
        print(" ".join(row.values()), flush=True)


def report() -> None:
    """Print a table of means ± standard deviations over the seeds."""
    rows = read_rows(ROWS)
    table = Table("data", "images", "minutes", "method", "seeds", "steps", "mIoU", "IoU of the classes")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["images"], row["minutes"], row["method"]), []).append(row)
    for group, own in sorted(groups.items()):
        classes = [json.loads(row["classes"]) for row in own]
        means = [
            f"{name.removeprefix('iou/')} {fmean(float(each[name]) for each in classes):.1f}" for name in classes[0]
        ]
        steps = f"{fmean(int(row['steps']) for row in own):.0f}"
        table.add_row(*group, str(len(own)), steps, mean_and_sd(float(row["miou"]) for row in own), ", ".join(means))
    Console(width=COLUMNS).print(table)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("run", help="train and score what is missing")
    for name in ("nuclei", "aerial", "weights", "work"):
        stage.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    stage.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    stage.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    stage.add_argument("--images", nargs="+", default=["all"], help="to train on; all, or a number")
    stage.add_argument("--data", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    stage.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    stage.add_argument("--processor", type=int, default=0, help="the one that all of it runs on")
    stages.add_parser("report", help="print the table")
    given = parser.parse_args(argv)
    if given.stage == "run":
        run_missing(given)
    else:
        report()


if __name__ == "__main__":
    main()
