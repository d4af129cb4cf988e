"""Compare `crispseg train` with default settings, plain training loops and other networks, in equal minutes.

    python benchmarks/first_result.py run --root DATA --weights WEIGHTS --work runs/first
    python benchmarks/first_result.py report

WEIGHTS are ImageNet weights of the backbone. DATA contains the folders that `--data` selects:

| folder | contains |
| --- | --- |
| nuclei | `images`, `instances` |
| aerial | `images`, `masks` |
| leaf | `images/{train,val}`, `masks/{train,val}` |
| camvid | `train`, `trainannot`, `val`, `valannot` |

Every training runs on one processor for the same minutes. `plain_loop` trains networks of segmentation-models-pytorch
(smp). `crispseg train --model NAME` trains smp's networks with default settings; they are scored at 1× and at the
1.33× of crispseg's models. Scores are those of the best evaluation on val, which is chosen on what it reports, and of
the last step (`last_`), which decides comparisons; both are the same if there was one evaluation.

`run` skips the rows in first_result.csv, so an interrupted command can be repeated. Rows name the processor's bf16
instructions, which double the speed of `crispseg train`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from compare import PEERS as PLUGIN
from compare import head
from reporting import Row, mean_and_sd, read_rows, write_rows
from torch import nn

from crispseg.benchmarking.cost import count_parameters
from crispseg.config.registry import load_plugins
from crispseg.data import Augment, FileDataset, Folder, train_transform
from crispseg.data.loading import train_loader
from crispseg.data.sources import LISTS
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import Evaluation
from crispseg.folders.lookup import InstanceLookup
from crispseg.inference.device import instruction_sets
from crispseg.inference.protocols import WHOLE, Protocol
from crispseg.models import SegmentationModel, create_model
from crispseg.training.checkpoints import LAST, load_checkpoint
from crispseg.training.pace import EVALUATING
from crispseg.training.result import METRICS

HERE = Path(__file__).resolve().parent
ROWS = HERE / "first_result.csv"
BACKBONE = "tf_efficientnet_lite0"
INSTANCE_CLASSES = {
    "nuclei": ["background", "nucleus", "border"],
    "aerial": ["building", "land", "road", "vegetation", "water"],
    "leaf": ["background", "leaf", "lesion"],
    "camvid": [
        *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian"),
        "bicyclist",
    ],
}
OURS = "crispseg"
LOOP = "loop_"
PEERS = ("fpn", "unet", "deeplabv3plus", "upernet", "segformer")
METHODS = [OURS, f"{LOOP}fpn", f"{LOOP}unet", *(f"smp_{name}" for name in PEERS)]
SEEN = (1.0, 1.33)
"""Inference scales of networks that do not upscale images themselves."""
DISTANCES = (2, 3)
"""Distances of boundary F in pixels."""
OBJECTS = ("object_f1", "object_ap")
LAST_COLUMNS = ("miou", "boundary_f_3")
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def data_of(name: str, root: Path) -> Folder:
    """Return the data set as custom data, with the bundled splits or those of its folders."""
    if name in ("leaf", "camvid"):
        return Folder(root=root, classes=INSTANCE_CLASSES[name], ignore=(11,) if name == "camvid" else ()).settled()
    lists = {f"{split}_list": LISTS / f"{name}_{split}.txt" for split in ("train", "val")}
    kind = "instances" if name == "nuclei" else "masks"
    ignore = (15,) if name == "aerial" else ()  # 255 in files of 4 bits per pixel
    data = Folder(images=root / "images", classes=INSTANCE_CLASSES[name], ignore=ignore, **{kind: root / kind}, **lists)
    return data.settled()


def fewer(data: Folder, images: int, seed: int, file: Path) -> Folder:
    """Return the data with fewer training images, chosen by the seed; write their names to `file`."""
    train, val = ([pair.name for pair in data.pairs(split)] for split in ("train", "val"))
    chosen = np.random.default_rng(seed).choice(train, images, replace=False)
    val_file = file.with_name("every_val.txt")
    for path, names in ((file, chosen), (val_file, val)):
        path.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    return replace(data, train_list=file, val_list=val_file)


def plain_loop(data: Folder, network: str, weights: Path, minutes: float, seed: int, run: Path) -> tuple[Trained, int]:
    """Train with AdamW at 1e-3, cross-entropy, random crops of 192, left-right flips and batches of 8.

    As in `crispseg train`, evaluations on val take at most a tenth of the time, and there is one at the end.
    """
    torch.manual_seed(seed)
    train = data.dataset("train")
    model = create_model(network, num_classes=len(train.labels), backbone=BACKBONE, pretrained=weights).train()
    augment = Augment(crop=(192, 192), scale=(1, 1), turn=False, photometric=False)
    batches = train_loader(train, train_transform(augment, model.info.mean, model.info.std), 8, 0, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    start, steps, scores = time.monotonic(), 0, [0.0]
    seconds, evaluating, due = 60 * minutes, 0.0, EVALUATING
    for epoch in itertools.count():
        batches.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for images, labels in batches:
            elapsed = time.monotonic() - start
            if elapsed >= due * seconds or elapsed + evaluating >= seconds:
                scores.append(score_model(model.eval(), data.dataset("val"), device="cpu", workers=0).scores.miou)
                evaluating = time.monotonic() - start - elapsed
                due = elapsed / seconds + max(EVALUATING, evaluating / (EVALUATING * seconds))
                if scores[-1] == max(scores):
                    model.save_pretrained(run)
                if elapsed + evaluating >= seconds:
                    return Trained(SegmentationModel.from_pretrained(run), model), steps
                model.train()
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    raise AssertionError


class Trained(NamedTuple):
    """Networks of one training."""

    best: SegmentationModel
    """Network of the best evaluation."""
    last: SegmentationModel
    """Network after the last step."""


def ours(data: Folder, network: Sequence[str], weights: Path, minutes: float, seed: int, out: Path) -> None:
    """Run `crispseg train` with default settings in a new folder; an interrupted run starts again."""
    shutil.rmtree(out, ignore_errors=True)
    own = [f"--model.pretrained={weights}", f"--minutes={minutes:g}", f"--seed={seed}", f"--out={out}"]
    command = [sys.executable, "-m", "crispseg", "train", *folder_flags(data), *network, *own]
    with out.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def folder_flags(data: Folder) -> list[str]:
    """Return the flags of `crispseg train` for custom data."""
    keys = ("root", "images", "masks", "instances", "train_list", "val_list")
    paths = [f"--data.{key}={value}" for key in keys if (value := getattr(data, key))]
    ignored = [f"--data.ignore={json.dumps(data.ignore)}"] if data.ignore else []
    return ["--data=folder", *paths, f"--data.classes={json.dumps(data.classes)}", *ignored]


def read_run(run: Path) -> Trained:
    """Return the networks of a run of `crispseg train`."""
    last = SegmentationModel.from_pretrained(run)
    load_checkpoint(run / LAST, last)
    return Trained(SegmentationModel.from_pretrained(run), last.eval())


def scored(model: SegmentationModel, dataset: FileDataset, protocol: Protocol = WHOLE) -> Evaluation:
    """Score mIoU, IoU of each class, boundary F and, for nuclei, single objects, with intervals."""
    names = dataset.labels.names
    objects = {"objects": names[1], "objects_border": names[2]} if isinstance(dataset.lookup, InstanceLookup) else {}
    seen = dataset.with_channels(model.info.in_chans, model.info.value_range)
    options = {"device": "cpu", "workers": 0, "protocol": protocol, "resamples": RESAMPLES}
    return score_model(model, seen, boundary=DISTANCES, **objects, **options)


def columns(model: SegmentationModel, evaluation: Evaluation) -> Row:
    """Return the scores, parameters and commit of a row."""
    objects = [(name, evaluation.estimates.get(name)) for name in OBJECTS]
    boundary = evaluation.measures["boundary_f"]
    iou = zip(evaluation.labels.names, evaluation.scores.iou, strict=True)
    return {
        "miou": f"{evaluation.scores.miou:.3f}",
        **{f"boundary_f_{distance}": f"{f:.3f}" for distance, f in zip(DISTANCES, boundary, strict=True)},
        **{name: "" if estimate is None else f"{estimate.value:.3f}" for name, estimate in objects},
        "classes": json.dumps({name: round(float(value), 2) for name, value in iou}),
        "parameters": str(count_parameters(model)),
        "commit": head(),
    }


def rows_of(name: str, data: Folder, weights: Path, minutes: float, seed: int, run: Path) -> Iterator[Row]:
    """Train a method, and yield a row for each inference scale; `run` is the folder of the run."""
    before, own = cpu_seconds(), 1.0
    if name.startswith(LOOP):
        trained, steps = plain_loop(data, f"smp_{name.removeprefix(LOOP)}", weights, minutes, seed, run)
    else:
        network, *options = name.split()
        said = [] if name == OURS else [f"--plugins={PLUGIN}", f"--model={network}", *options]
        ours(data, said, weights, minutes, seed, run)
        trained, steps = read_run(run), int(read_rows(run / METRICS)[-1]["step"])
        own = float(getattr(trained.best, "inference_scale", 1))  # peers have none
    spent = {"steps": str(steps), "processor_seconds": f"{cpu_seconds() - before:.0f}"}
    for scale in SEEN[:1] if own > 1 or name.startswith(LOOP) else SEEN:
        best, last = (scored(model, data.dataset("val"), Protocol(scales=(scale,))) for model in trained)
        final = {key: value for key, value in columns(trained.last, last).items() if key in LAST_COLUMNS}
        row = columns(trained.best, best) | {f"last_{key}": value for key, value in final.items()}
        yield {"seen": f"{own * scale:g}"} | spent | row


def kind_of_processor() -> str:
    """Return the processor's bf16 instructions; rows of equal minutes compare only within one kind."""
    return next((kind for kind in ("amx_bf16", "avx512_bf16") if kind in instruction_sets()), "no bf16")


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its finished children."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in WHO)


def run_missing(given: argparse.Namespace) -> None:
    """Append the rows of each training without one."""
    os.sched_setaffinity(0, {given.processor})
    torch.set_num_threads(1)
    load_plugins([str(PLUGIN)])
    sources = {name: data_of(name, given.root / name) for name in given.data}
    for minutes, seed, images, source, name in itertools.product(
        given.minutes, given.seeds, given.images, given.data, given.methods
    ):
        where = {"data": source, "processor": kind_of_processor(), "images": str(images)}
        key = where | {"minutes": f"{minutes:g}", "method": name, "seed": str(seed)}
        if is_there(ROWS, key):
            continue
        folder = given.work / f"{source}-{images}-{minutes:g}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        data = sources[source] if images == "all" else fewer(sources[source], int(images), seed, folder / "train.txt")
        made = rows_of(name, data, given.weights, minutes, seed, folder / folder_name(name))
        rows = [key | row for row in made]
        write_rows(ROWS, [*read_rows(ROWS), *rows])
        for row in rows:
            print(" ".join(row.values()), flush=True)


def is_there(file: Path, key: Row) -> bool:
    return any(key.items() <= row.items() for row in read_rows(file))


def folder_name(*parts: str) -> str:
    """Join the parts, without special characters."""
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-")


def print_means(file: Path, shared: Sequence[str]) -> None:
    """Print mean ± standard deviation over the rows that agree in the columns `shared`."""
    measures = [
        "miou",
        *(f"last_{column}" for column in LAST_COLUMNS),
        *(f"boundary_f_{distance}" for distance in DISTANCES),
        *OBJECTS,
    ]
    frame = pd.DataFrame(read_rows(file)).sort_values([*shared])
    frame["run"] = frame[[*shared]].agg(", ".join, axis=1)
    print(mean_and_sd(frame.set_index("run")[measures].apply(pd.to_numeric)).to_markdown())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("run", help="train and score missing rows")
    for name in ("root", "weights", "work"):
        stage.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    stage.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    stage.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    stage.add_argument("--images", nargs="+", default=["all"], help="number of training images, or all")
    stage.add_argument("--data", nargs="+", choices=list(INSTANCE_CLASSES), default=["nuclei", "aerial"])
    stage.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        help="methods, or networks such as sfnet or 'fpn --model.width=64'",
    )
    stage.add_argument("--processor", type=int, default=0, help="index of the processor to run on")
    stages.add_parser("report", help="print the table")
    given = parser.parse_args(argv)
    if given.stage == "run":
        run_missing(given)
    else:
        print_means(ROWS, ("data", "processor", "images", "minutes", "method", "seen"))


if __name__ == "__main__":
    main()
