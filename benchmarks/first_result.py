"""What a newcomer gets: `crispseg train` given nothing but the data, and the plain loops that people write.

    python benchmarks/first_result.py run --root DATA --weights WEIGHTS --work runs/first
    python benchmarks/first_result.py report

DATA has the folders `nuclei` with `images` and `instances`, `aerial` with `images` and `masks`, `leaf` with
`images/{train,val}` and `masks/{train,val}`, and `camvid` with `train`, `trainannot`, `val` and `valannot`; `--data`
chooses some of them. WEIGHTS are ImageNet weights of the backbone.
Every training has one processor and the same minutes of it. The loops are `plain_loop` around networks of
segmentation-models-pytorch. The same networks are also trained by `crispseg train --model NAME`, with all that it chose
but the network, and these are scored on images at their size and as much larger as `crisp` sees them by itself. `run`
does what is missing in first_result.csv, so it can be stopped and started again. Processors that have instructions for
bf16 and those that have none are distinguished: the first train twice as fast by `crispseg train`, which takes them.
`--methods nnunet` trains nnU-Net, see `nnunet.py`.
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
from crispseg.data.mask_lookup import InstanceLookup
from crispseg.data.sources import LISTS
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import Evaluation
from crispseg.inference.protocols import WHOLE, Protocol
from crispseg.models import SegmentationModel, create_model
from crispseg.training.result import METRICS

HERE = Path(__file__).resolve().parent
ROWS = HERE / "first_result.csv"
BACKBONE = "tf_efficientnet_lite0"
CLASSES = {
    "nuclei": ["background", "nucleus", "border"],
    "aerial": ["building", "land", "road", "vegetation", "water"],
    "leaf": ["background", "leaf", "lesion"],
    "camvid": [
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ],
}
OURS = "crispseg"
LOOP = "loop_"
PEERS = ("fpn", "unet", "deeplabv3plus", "upernet", "segformer")
METHODS = [OURS, f"{LOOP}fpn", f"{LOOP}unet", *(f"smp_{name}" for name in PEERS)]
SEEN = (1.0, 1.33)
"""How large images are seen by networks that do not enlarge them by themselves, as factors of their size."""
DISTANCES = (2, 3)
"""Pixels, at which boundaries are scored."""
OBJECTS = ("object_f1", "object_ap")
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


# Data ----------------------------------------------------------------------------------------------------------------


def data_of(name: str, root: Path) -> Folder:
    """The data set as own data: with the bundled splits, or with those that its folders are."""
    if name in ("leaf", "camvid"):
        return Folder(root=root, classes=CLASSES[name], ignore=(11,) if name == "camvid" else ()).settled()
    lists = {f"{split}_list": LISTS / f"{name}_{split}.txt" for split in ("train", "val")}
    kind = "instances" if name == "nuclei" else "masks"
    ignore = (15,) if name == "aerial" else ()  # which 255 becomes in files of 4 bits a pixel
    data = Folder(images=root / "images", classes=CLASSES[name], ignore=ignore, **{kind: root / kind}, **lists)
    return data.settled()


def fewer(data: Folder, images: int, seed: int, file: Path) -> Folder:
    """The same data with a number of training images, chosen by the seed; their names are written to `file`."""
    train, val = ([pair.name for pair in data.pairs(split)] for split in ("train", "val"))
    chosen = np.random.default_rng(seed).choice(train, images, replace=False)
    val_file = file.with_name("every_val.txt")
    for path, names in ((file, chosen), (val_file, val)):
        path.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    return replace(data, train_list=file, val_list=val_file)


# Trainings -----------------------------------------------------------------------------------------------------------


def plain_loop(data: Folder, network: str, weights: Path, minutes: float, seed: int) -> tuple[SegmentationModel, int]:
    """What is written in an hour: AdamW at 1e-3, cross-entropy, random crops of 192, left-right flips, batches of 8."""
    torch.manual_seed(seed)
    train = data.dataset("train")
    model = create_model(network, num_classes=len(train.labels), backbone=BACKBONE, pretrained=weights).train()
    augment = Augment(crop=(192, 192), scale=(1, 1), turn=False, photometric=False)
    batches = train_loader(train, train_transform(augment, model.info.mean, model.info.std), 8, 0, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    end, steps = time.monotonic() + 60 * minutes, 0
    for epoch in itertools.count():
        batches.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for images, labels in batches:
            if time.monotonic() >= end:
                return model.eval(), steps
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    raise AssertionError


def ours(data: Folder, network: Sequence[str], weights: Path, minutes: float, seed: int, out: Path) -> None:
    """`crispseg train`, given the data, where the weights lie, how long and where to; what was stopped starts again."""
    shutil.rmtree(out, ignore_errors=True)
    own = [f"--model.pretrained={weights}", f"--minutes={minutes:g}", f"--seed={seed}", f"--out={out}"]
    command = [sys.executable, "-m", "crispseg", "train", *folder_flags(data), *network, *own]
    with out.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def folder_flags(data: Folder) -> list[str]:
    """What `crispseg train` is given about own data."""
    keys = ("root", "images", "masks", "instances", "train_list", "val_list")
    paths = [f"--data.{key}={value}" for key in keys if (value := getattr(data, key))]
    ignored = [f"--data.ignore={json.dumps(data.ignore)}"] if data.ignore else []
    return ["--data=folder", *paths, f"--data.classes={json.dumps(data.classes)}", *ignored]


# Rows ----------------------------------------------------------------------------------------------------------------


def scored(model: SegmentationModel, dataset: FileDataset, protocol: Protocol = WHOLE) -> Evaluation:
    """mIoU, the IoU of each class and boundary F, with intervals; of nuclei, how well single ones are found too."""
    names = dataset.labels.names
    objects = {"objects": names[1], "objects_border": names[2]} if isinstance(dataset.lookup, InstanceLookup) else {}
    seen = dataset.with_channels(model.info.in_chans, model.info.value_range)
    options = {"device": "cpu", "workers": 0, "protocol": protocol, "resamples": RESAMPLES}
    return score_model(model, seen, boundary=DISTANCES, **objects, **options)


def columns(model: SegmentationModel, evaluation: Evaluation) -> Row:
    """What rows say of a model."""
    objects = [(name, evaluation.estimates.get(name)) for name in OBJECTS]
    boundary = evaluation.measures["boundary_f"]
    iou = zip(evaluation.labels.names, evaluation.scores.iou, strict=True)
    return {
        "miou": f"{evaluation.scores.miou:.3f}",
        **{f"boundary_f_{distance}": f"{f:.3f}" for distance, f in zip(DISTANCES, boundary, strict=True)},
        **{name: "" if found is None else f"{found.value:.3f}" for name, found in objects},
        "classes": json.dumps({name: round(float(value), 2) for name, value in iou}),
        "parameters": str(count_parameters(model)),
        "commit": head(),
    }


def rows_of(name: str, data: Folder, weights: Path, minutes: float, seed: int, run: Path) -> Iterator[Row]:
    """Train, in the folder `run` where it is by `crispseg train`, and score."""
    before, own = cpu_seconds(), 1.0
    if name == "nnunet":
        import nnunet

        trained, parameters, steps = nnunet.trained(data.dataset("train"), minutes, seed, run)
        spent = {"steps": str(steps), "processor_seconds": f"{cpu_seconds() - before:.0f}"}
        row = columns(trained, scored(trained, data.dataset("val")))
        yield {"seen": "1"} | spent | row | {"parameters": str(parameters)}
        return
    if name.startswith(LOOP):
        model, steps = plain_loop(data, f"smp_{name.removeprefix(LOOP)}", weights, minutes, seed)
    else:
        network, *options = name.split()
        said = [] if name == OURS else [f"--plugins={PLUGIN}", f"--model={network}", *options]
        ours(data, said, weights, minutes, seed, run)
        model, steps = SegmentationModel.from_pretrained(run), int(read_rows(run / METRICS)[-1]["step"])
        own = float(getattr(model, "inference_scale", 1))  # which peers do not have
    spent = {"steps": str(steps), "processor_seconds": f"{cpu_seconds() - before:.0f}"}
    for scale in SEEN[:1] if own > 1 or name.startswith(LOOP) else SEEN:
        evaluation = scored(model, data.dataset("val"), Protocol(scales=(scale,)))
        yield {"seen": f"{own * scale:g}"} | spent | columns(model, evaluation)


def kind_of_processor() -> str:
    """Rows of equal minutes compare within a kind only; the first is the fastest at bfloat16."""
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return next((kind for kind in ("amx_bf16", "avx512_bf16") if kind in words), "no bf16")


def cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in WHO)


def run_missing(given: argparse.Namespace) -> None:
    """Append a row for each training that has none, those of ours first."""
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
    """The name of a run's folder."""
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-")


def print_means(file: Path, shared: Sequence[str]) -> None:
    """Print means ± standard deviations of a file's rows; those that have alike what is shared are one line."""
    measures = ["miou", *(f"boundary_f_{distance}" for distance in DISTANCES), *OBJECTS]
    frame = pd.DataFrame(read_rows(file)).sort_values([*shared])
    frame["run"] = frame[[*shared]].agg(", ".join, axis=1)
    print(mean_and_sd(frame.set_index("run")[measures].apply(pd.to_numeric)).to_markdown())


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("run", help="train and score what is missing")
    for name in ("root", "weights", "work"):
        stage.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    stage.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    stage.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    stage.add_argument("--images", nargs="+", default=["all"], help="to train on; all, or a number")
    stage.add_argument("--data", nargs="+", choices=list(CLASSES), default=["nuclei", "aerial"])
    stage.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        help="of the default, or networks, such as sfnet or 'fpn --model.width=64'",
    )
    stage.add_argument("--processor", type=int, default=0, help="the one that all of it runs on")
    stages.add_parser("report", help="print the table")
    given = parser.parse_args(argv)
    if given.stage == "run":
        run_missing(given)
    else:
        print_means(ROWS, ("data", "processor", "images", "minutes", "method", "seen"))


if __name__ == "__main__":
    main()
