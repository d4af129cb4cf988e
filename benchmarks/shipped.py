"""The trained models that come with crispseg: made with their cards, compared with peers, and started from.

    python benchmarks/shipped.py train nuclei --root NUCLEI --weights WEIGHTS --minutes 60 --seed 0
    python benchmarks/shipped.py compare nuclei --root NUCLEI --weights WEIGHTS --minutes 15
    python benchmarks/shipped.py finetune nuclei --root NUCLEI --weights WEIGHTS --minutes 3 --base_minutes 15
    python benchmarks/shipped.py report

Every training is `crispseg train` with its defaults, on `--data nuclei` or `--data aerial`, from ImageNet weights of
the backbone; further flags go to it. `train` writes src/crispseg/shipped/NAME. `compare` and `finetune` append rows to
shipped_compare.csv and shipped_finetune.csv for what is missing, and go on with runs that were stopped. Each network of
`compare` is scored on images at their size and 1.33 times as large, since `crisp` sees these larger by itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shlex
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from compare import COMMIT, PEERS, file_hash, head, recorded_commit
from first_result import fewer, folder_flags
from reporting import COLUMNS, mean_and_sd
from results import Row, f_column, read_rows, write_rows
from rich.console import Console
from rich.table import Table
from shipped_card import DATA, DISTANCES, in_colour, ship

from crispseg.cli.main import main as crispseg
from crispseg.cli.parsing import build_data, parse_training, read_yaml
from crispseg.counting import count_parameters
from crispseg.data import DataSource, Folder, InstanceDataset, SegmentationDataset
from crispseg.errors import CrispsegError
from crispseg.evaluation import BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.objects import ObjectScores
from crispseg.evaluation.per_image import RESAMPLES
from crispseg.evaluation.summary import Evaluation
from crispseg.imaging import write_image
from crispseg.inference.protocols import WHOLE, Protocol
from crispseg.models import SegmentationModel
from crispseg.models.saving import SHIPPED
from crispseg.objects import NUMBERED
from crispseg.plugins import load_plugins
from crispseg.training.checkpoints import LAST
from crispseg.training.config import CONFIG

HERE = Path(__file__).resolve().parent
MODELS = ("crisp", "smp_fpn", "smp_unet", "smp_deeplabv3plus")
SCALES = (1.0, 1.33)
"""How large the images of val are seen, as factors of their size."""
OBJECTS = ("object_f1", "object_ap")
OTHERS = "other images"

# Trainings -----------------------------------------------------------------------------------------------------------


def trained(run: Path, flags: Sequence[str]) -> SegmentationModel:
    """The best model of a run of `crispseg train`, which is made, or brought to its end, where it is not there.

    Raises:
        SystemExit: the training went wrong, or one with other flags is there; it has said so.
    """
    place = "resume" if (run / LAST).is_file() else "out"
    if place == "out":
        run.mkdir(parents=True, exist_ok=True)
        (run / COMMIT).write_text(f"{head()}\n", encoding="utf-8")
    if status := crispseg(["train", *flags, f"--{place}={run}"]):
        raise SystemExit(status)
    return SegmentationModel.from_pretrained(run)


def scored(model: SegmentationModel, dataset: SegmentationDataset, protocol: Protocol = WHOLE) -> Evaluation:
    """mIoU, the IoU of each class and boundary F, with intervals; of nuclei, how well single ones are found too."""
    classes = model.info.num_classes
    boundary = BoundaryScores(classes, DISTANCES)
    objects = ObjectScores(classes, NUMBERED) if isinstance(dataset, InstanceDataset) else None
    seen = dataset.with_channels(model.info.in_chans, model.info.value_range)
    scores = evaluate(model, seen, workers=0, protocol=protocol, boundary=boundary, objects=objects)
    return Evaluation(
        dataset.labels, scores, boundary.scores(), objects=objects and objects.scores(), resamples=RESAMPLES
    )


def val_of(run: Path) -> SegmentationDataset:
    """The val split of the data that a run was trained on."""
    return build_data(read_yaml(run / CONFIG)["data"]).dataset("val")


def flags_of(given: argparse.Namespace, seed: int, further: Sequence[str]) -> list[str]:
    """What trainings on all of the data are told."""
    own = [f"--minutes={given.minutes:g}", f"--model.pretrained={given.weights}", f"--seed={seed}"]
    return [*data_flags(given), *further, *own]


def data_flags(given: argparse.Namespace) -> list[str]:
    return [f"--data={given.data}", f"--data.root={given.root}"]


# A model with its card -----------------------------------------------------------------------------------------------


def train_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Train one, score it as float16 leaves it, and write its folder for the wheel."""
    run, folder = given.work / f"{given.data}-{given.seed}", given.out / given.data
    model = trained(run, flags_of(given, given.seed, further)).half().float()
    told = ["train", given.data, "--root", "ROOT", "--weights", given.weights.name]
    told += ["--minutes", f"{given.minutes:g}", "--seed", str(given.seed)]
    val, commit = val_of(run), recorded_commit(run)
    if commit is None:
        raise CrispsegError(f"{run} does not say which commit trained it; remove the folder, to train anew")
    ship(folder, model, val, scored(model, val), told, further, trained_at=commit)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f} MB")


# Rows ----------------------------------------------------------------------------------------------------------------


def append_row(file: Path, key: Row, model: SegmentationModel, evaluation: Evaluation) -> None:
    """Append the row of a model."""
    assert evaluation.boundary is not None
    objects = [(name, evaluation.measures.get(name)) for name in OBJECTS]
    iou = zip(evaluation.labels.names, evaluation.scores.iou, strict=True)
    row = {
        **key,
        "miou": f"{evaluation.scores.miou:.3f}",
        **{f_column(distance): f"{f:.3f}" for distance, f in evaluation.boundary.mean.items()},
        **{name: "" if value is None else f"{value:.3f}" for name, value in objects},
        "classes": json.dumps({name: round(float(value), 2) for name, value in iou}),
        "parameters": str(count_parameters(model)),
        "commit": head(),
    }
    write_rows(file, [*read_rows(file), row])
    print(" ".join(row.values()), flush=True)


def recipe_of(given: argparse.Namespace, further: Sequence[str]) -> Row:
    """What rows that may be compared have in common: the weights that trainings start from, and further flags."""
    return {"weights": file_hash(str(given.weights)), "flags": shlex.join(further)}


def is_there(file: Path, key: Row) -> bool:
    return any(key.items() <= row.items() for row in read_rows(file))


def folder_name(stage: str, key: Row) -> str:
    """The name of a run's folder."""
    return re.sub(r"[^\w.]+", "-", "-".join([stage, *key.values()])).strip("-")


def compare_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Append a row for each network and seed that has none, all trained alike."""
    load_plugins([str(PEERS)])
    file, recipe = HERE / "shipped_compare.csv", recipe_of(given, further)
    for seed, name in itertools.product(given.seeds, given.models):
        key = {"data": given.data, "model": name, "minutes": f"{given.minutes:g}", "seed": str(seed), **recipe}
        if is_there(file, key):
            continue
        run = given.work / folder_name("compare", key)
        network, *options = name.split()
        told = [*flags_of(given, seed, further), f"--plugins={PEERS}", f"--model={network}", *options]
        model = trained(run, told)
        model.enlarge = Fraction(1)  # since the protocol says what is seen
        for scale in SCALES:
            evaluation = scored(model, val_of(run), Protocol(scales=(scale,)))
            append_row(file, {**key, "seen": f"{scale:g}"}, model, evaluation)


def finetune_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Train on the images without colour; then on a few in colour, from that model and from ImageNet weights."""
    file = HERE / "shipped_finetune.csv"
    kinds = given.work / f"{given.data}-kinds"
    config = parse_training([*data_flags(given), *further], {}, prog="shipped.py finetune", description="")
    others, left = divided(config.data, kinds)
    pretrained = [f"--model.pretrained={given.weights}"]
    start = {"data": given.data, "base_minutes": f"{given.base_minutes:g}", **recipe_of(given, further)}
    common = {**start, "minutes": f"{given.minutes:g}"}
    base = given.work / folder_name("base", start)
    own = [f"--minutes={given.base_minutes:g}", "--seed=0"]
    model = trained(base, [*further, *folder_flags(others), *pretrained, *own])
    key = {**common, "start": OTHERS, "images": "0", "seed": "0"}
    if not is_there(file, key):
        append_row(file, key, model, scored(model, left.dataset("val")))
    starts = {OTHERS: [f"--init_from={base}"], "ImageNet": pretrained}
    available = len(left.pairs("train"))
    for seed, images in itertools.product(given.seeds, sorted({min(count, available) for count in given.images})):
        few = fewer(left, images, seed, kinds / f"{images}-{seed}.txt")
        for start, flags in starts.items():
            key = {**common, "start": start, "images": str(images), "seed": str(seed)}
            if is_there(file, key):
                continue
            run = given.work / folder_name("finetune", key)
            own = [f"--minutes={given.minutes:g}", f"--seed={seed}"]
            model = trained(run, [*further, *folder_flags(few), *flags, *own])
            append_row(file, key, model, scored(model, val_of(run)))


def divided(data: DataSource, folder: Path) -> tuple[Folder, Folder]:
    """The images of a source as files in `folder`: data of those without colour, and of those in colour."""
    labels = data.label_set()
    names: dict[tuple[bool, str], list[str]] = {}
    for split in ("train", "val"):
        dataset = data.dataset(split)
        for image, truth, name in map(dataset.__getitem__, range(len(dataset))):
            colored = in_colour(image)
            names.setdefault((colored, split), []).append(name)
            write_image(folder / f"images/{name}.png", image)
            numbers = dataset.instances(name)
            write_image(folder / f"masks/{name}.png", truth if numbers is None else numbers.astype(np.uint16))
    for (colored, split), found in names.items():
        (folder / f"{colored}_{split}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")
    kind = "instances" if isinstance(dataset, InstanceDataset) else "masks"
    shared = {"images": folder / "images", kind: folder / "masks", "classes": list(labels.names)}
    if len(names) < 4:
        raise CrispsegError(f"{data.name} has no images in colour, or only such ones, in train or val; give nuclei")
    plain, colored_ones = (
        Folder(**shared, train_list=folder / f"{kind}_train.txt", val_list=folder / f"{kind}_val.txt")
        for kind in (False, True)
    )
    return plain, colored_ones


def report() -> None:
    """Print means ± standard deviations over the seeds."""
    for name in ("compare", "finetune"):
        found = read_rows(HERE / f"shipped_{name}.csv")
        if not found:
            continue
        measures = ["miou", *map(f_column, DISTANCES), *OBJECTS]
        shared = [key for key in found[0] if key not in (*measures, *LEFT_OUT)]
        table = Table(*shared, "seeds", *measures, title=name)
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in found:
            groups.setdefault(tuple(row[key] for key in shared), []).append(row)
        for group, own in groups.items():
            means = [mean_and_sd(float(row[key]) for row in own) if own[0][key] else "–" for key in measures]
            table.add_row(*group, str(len(own)), *means)
        Console(width=COLUMNS).print(table)


LEFT_OUT = ("seed", "weights", "classes", "parameters", "commit")
"""Columns that do not divide the rows into groups."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("data", choices=list(DATA))
    for name, text in (("root", "folder of the data"), ("weights", "ImageNet weights of the backbone")):
        shared.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True, help=text)
    shared.add_argument("--minutes", type=float, required=True, help="of each training")
    shared.add_argument("--work", type=Path, default=Path("runs/shipped"), help="folder of the runs")
    seeds = argparse.ArgumentParser(add_help=False)
    seeds.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    stage = stages.add_parser("train", parents=[shared], allow_abbrev=False, help="train a model and write its folder")
    stage.add_argument("--seed", type=int, default=0)
    stage.add_argument("--out", type=Path, default=SHIPPED, help="where the model's folder is made")
    stage = stages.add_parser(
        "compare", parents=[shared, seeds], allow_abbrev=False, help="append rows to shipped_compare.csv"
    )
    stage.add_argument("--models", nargs="+", default=list(MODELS), help="such as fpn, or 'sfnet --model.width=64'")
    stage = stages.add_parser(
        "finetune", parents=[shared, seeds], allow_abbrev=False, help="append rows to shipped_finetune.csv"
    )
    stage.add_argument("--base_minutes", type=float, required=True, help="of the training without the left-out kind")
    stage.add_argument("--images", type=int, nargs="+", default=[10, 30, 100], help="of the left-out kind to train on")
    stages.add_parser("report", help="print the tables")
    given, further = parser.parse_known_args(argv)
    try:
        match given.stage:
            case "train":
                train_stage(given, further)
            case "compare":
                compare_stage(given, further)
            case "finetune":
                finetune_stage(given, further)
            case "report":
                report()
    except CrispsegError as error:
        print(f"shipped.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
