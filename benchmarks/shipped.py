"""Train the bundled models, write their cards, and measure fine-tuning.

    python benchmarks/shipped.py train nuclei --root NUCLEI --weights WEIGHTS --minutes 60 --seed 0
    python benchmarks/shipped.py card nuclei --root NUCLEI
    python benchmarks/shipped.py finetune nuclei --root NUCLEI --weights WEIGHTS --minutes 3 --base_minutes 15
    python benchmarks/shipped.py report

Every training is `crispseg train` with default settings, on nuclei, aerial or leaf, from ImageNet weights of the
backbone; further flags are passed to it. `train` writes src/crispseg/shipped/NAME. `card` scores that model, and
rewrites its scores, card and pictures. `finetune` appends missing rows to shipped_finetune.csv and resumes interrupted
runs. first_result.py compares other networks on the same data.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from compare import COMMIT, file_hash, head, recorded_commit
from first_result import columns, fewer, folder_flags, folder_name, is_there, print_means, scored
from reporting import Row, read_rows, write_rows
from shipped_card import DATA, flags_of, in_colour, made_by, recipe_section, ship

from crispseg.cli.main import main as crispseg
from crispseg.cli.train import Train
from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import read_yaml
from crispseg.data import DataSource, FileDataset, Folder
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.calibration import fitted_temperature
from crispseg.evaluation.summary import Evaluation
from crispseg.inference import Segmenter
from crispseg.io.images import write_image
from crispseg.models import SegmentationModel
from crispseg.models.novelty import Novelty
from crispseg.models.saving import SHIPPED
from crispseg.training.checkpoints import LAST
from crispseg.training.fit import features_of

HERE = Path(__file__).resolve().parent
ROWS = HERE / "shipped_finetune.csv"
OTHERS = "other images"


def trained(run: Path, flags: Sequence[str]) -> SegmentationModel:
    """Train or resume a run, and return its best model.

    Raises:
        SystemExit: the training failed, or the run has other flags; `crispseg train` printed the reason.
    """
    place = "resume" if (run / LAST).is_file() else "out"
    if place == "out":
        run.mkdir(parents=True, exist_ok=True)
        (run / COMMIT).write_text(f"{head()}\n", encoding="utf-8")
    if status := crispseg(["train", *flags, f"--{place}={run}"]):
        raise SystemExit(status)
    return SegmentationModel.from_pretrained(run)


def val_of(run: Path) -> FileDataset:
    """Return the val split of a run's data."""
    return build_data(read_yaml(run / CONFIG)["data"]).dataset("val")


def data_flags(given: argparse.Namespace) -> list[str]:
    return [*flags_of(given.data), f"--data.root={given.root}"]


def data_of(given: argparse.Namespace, further: Sequence[str]) -> DataSource:
    """Return the data that `crispseg train` would use."""
    return Train.parsed([*data_flags(given), *further]).config().data


def train_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Train a model, score it after rounding to float16, and write its folder for the wheel."""
    run, folder = given.work / f"{given.data}-{given.seed}", given.out / given.data
    own = [f"--minutes={given.minutes:g}", f"--model.pretrained={given.weights}", f"--seed={given.seed}"]
    model = trained(run, [*data_flags(given), *further, *own]).half().float()
    told = ["train", given.data, "--root", "ROOT", "--weights", given.weights.name]
    told += ["--minutes", f"{given.minutes:g}", "--seed", str(given.seed)]
    val, commit = val_of(run), recorded_commit(run)
    if commit is None:
        raise CrispsegError(f"{run} does not say which commit trained it; remove the folder, to train again")
    ship(folder, model, val, scored(model, val), made_by(model, told, further, trained_at=commit))
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f} MB")


def card_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Score an existing model, calibrate it, and rewrite its scores, card and pictures."""
    folder = given.out / given.data
    model = SegmentationModel.from_pretrained(folder)
    train, val = (data_of(given, further).dataset(split) for split in ("train", "val"))
    model.novelty = Novelty.fit(features_of(model, train), features_of(model, val))
    model.info = replace(model.info, temperature=fitted_temperature(Segmenter(model), val))
    ship(folder, model, val, scored(model, val), recipe_section(folder))
    print(f"{folder}: mIoU {model.info.metrics['val_miou']}")


def append_row(key: Row, model: SegmentationModel, evaluation: Evaluation) -> None:
    row = key | columns(model, evaluation)
    write_rows(ROWS, [*read_rows(ROWS), row])
    print(" ".join(row.values()), flush=True)


def recipe_of(given: argparse.Namespace, further: Sequence[str]) -> Row:
    """Return the columns that comparable rows share: initial weights and further flags."""
    return {"weights": file_hash(str(given.weights)), "flags": shlex.join(further)}


def finetune_stage(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Train on images without colour, then on a few in colour, from that model and from ImageNet weights."""
    kinds = given.work / f"{given.data}-kinds"
    others, left = divided(data_of(given, further), kinds)
    pretrained = [f"--model.pretrained={given.weights}"]
    start = {"data": given.data, "base_minutes": f"{given.base_minutes:g}", **recipe_of(given, further)}
    common = {**start, "minutes": f"{given.minutes:g}"}
    base = given.work / folder_name("base", *start.values())
    own = [f"--minutes={given.base_minutes:g}", "--seed=0"]
    model = trained(base, [*further, *folder_flags(others), *pretrained, *own])
    key = {**common, "start": OTHERS, "images": "0", "seed": "0"}
    if not is_there(ROWS, key):
        append_row(key, model, scored(model, left.dataset("val")))
    starts = {OTHERS: [f"--init_from={base}"], "ImageNet": pretrained}
    available = len(left.pairs("train"))
    for seed, images in itertools.product(given.seeds, sorted({min(count, available) for count in given.images})):
        few = fewer(left, images, seed, kinds / f"{images}-{seed}.txt")
        for start, flags in starts.items():
            key = {**common, "start": start, "images": str(images), "seed": str(seed)}
            if is_there(ROWS, key):
                continue
            run = given.work / folder_name("finetune", *key.values())
            own = [f"--minutes={given.minutes:g}", f"--seed={seed}"]
            model = trained(run, [*further, *folder_flags(few), *flags, *own])
            append_row(key, model, scored(model, val_of(run)))


def divided(data: DataSource, folder: Path) -> tuple[Folder, Folder]:
    """Write a source's images and masks to `folder`; return the data without colour and the data in colour."""
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
    for (colored, split), stems in names.items():
        (folder / f"{colored}_{split}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")
    kind = "masks" if numbers is None else "instances"
    shared = {"images": folder / "images", kind: folder / "masks", "classes": list(labels.names)}
    if len(names) < 4:
        raise CrispsegError(f"{data.name} has no images in colour, or only such ones, in train or val; give nuclei")
    plain, colored_ones = (
        Folder(**shared, train_list=folder / f"{kind}_train.txt", val_list=folder / f"{kind}_val.txt")
        for kind in (False, True)
    )
    return plain, colored_ones


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    data, trains = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    data.add_argument("data", choices=list(DATA))
    for parser_of, name, text in ((data, "root", "folder of the data"), (trains, "weights", "ImageNet weights")):
        parser_of.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True, help=text)
    trains.add_argument("--minutes", type=float, required=True, help="minutes of each training")
    trains.add_argument("--work", type=Path, default=Path("runs/shipped"), help="folder of the runs")
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument("--out", type=Path, default=SHIPPED, help="folder with a folder for each model")
    seeds = argparse.ArgumentParser(add_help=False)
    seeds.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    stage = stages.add_parser(
        "train", parents=[data, trains, models], allow_abbrev=False, help="train a model and write its folder"
    )
    stage.add_argument("--seed", type=int, default=0)
    stages.add_parser("card", parents=[data, models], allow_abbrev=False, help="score a model and rewrite its card")
    stage = stages.add_parser(
        "finetune", parents=[data, trains, seeds], allow_abbrev=False, help="append rows to shipped_finetune.csv"
    )
    stage.add_argument("--base_minutes", type=float, required=True, help="minutes of the training without colour")
    stage.add_argument("--images", type=int, nargs="+", default=[10, 30, 100], help="numbers of colour images")
    stages.add_parser("report", help="print the means of fine-tuning")
    given, further = parser.parse_known_args(argv)
    try:
        match given.stage:
            case "train":
                train_stage(given, further)
            case "card":
                card_stage(given, further)
            case "finetune":
                finetune_stage(given, further)
            case "report":
                print_means(ROWS, ("data", "base_minutes", "minutes", "flags", "start", "images"))
    except CrispsegError as error:
        print(f"shipped.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
