"""Train, score, time and report the networks of the CamVid tables in tables.py; README.md explains the columns.

    python benchmarks/compare.py train TABLE --runs runs/camvid --data CAMVID --weights WEIGHTS
    python benchmarks/compare.py score TABLE --runs runs/camvid
    python benchmarks/compare.py time TABLE
    python benchmarks/compare.py report TABLE

`train` and `score` skip finished work, so an interrupted command can be repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import tables
import torch
from PIL import Image
from reporting import Row, read_rows, recipe_hash, report, write_rows
from tables import HERE, Comparison, Entry
from torch import Tensor, nn

from crispseg.benchmarking.cost import count_multiply_adds, count_parameters, take_turns
from crispseg.cli.train import Train
from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import read_yaml
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation import BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.inference.device import processor_name
from crispseg.inference.protocols import Protocol
from crispseg.io.files import atomic_folder, atomic_path
from crispseg.models import SegmentationModel
from crispseg.models.saving import TRAINING_ONLY
from crispseg.nn import resize
from crispseg.training import TrainConfig, train
from crispseg.training.checkpoints import LAST, read_checkpoint

PEERS = HERE / "peers.py"

COMMIT = "commit.txt"
WARMUP = 2  # rounds of `time` that are not measured
TOLERANCE = 1.0  # mIoU points; see `score_run`


def configuration(table: Comparison, entry: Entry, seed: int, data: Path, *flags: str) -> TrainConfig:
    """Return the configuration that `crispseg train` builds from the recipe and flags."""
    own = [f"--plugins={PEERS}", *entry.flags.split(), f"--seed={seed}", f"--data.root={data}"]
    return Train.parsed([str(table.recipe), *own, "--loggers=[]", *flags]).config()


def runs(table: Comparison, folder: Path) -> list[tuple[str, int, Path]]:
    """Return name, seed and run folder of each row of a table, ordered by seed."""
    rows = [
        (name, seed, folder / f"{entry.trained_as or name}-{seed}")
        for name, entry in table.entries.items()
        for seed in entry.seeds
    ]
    return sorted(rows, key=lambda row: row[1])


def finished(run: Path) -> bool:
    evaluated = read_rows(run / "metrics.csv")
    return bool(evaluated) and int(evaluated[-1]["epoch"]) == read_yaml(run / CONFIG)["epochs"]


def train_stage(table: Comparison, folder: Path, data: str, weights: str) -> None:
    """Train the runs without a row, one after the other; resume interrupted runs."""
    file_hash(weights)  # raises if the file is missing
    commit = head()
    root = halve(Path(data), folder / "halved") if table.halved else Path(data)
    for name, seed, run in runs(table, folder):
        if finished(run) or has_row(table, name, seed):
            continue
        resume = (run / LAST).is_file()
        if resume and recorded_commit(run) != commit:
            raise CrispsegError(f"{run} was begun at commit {recorded_commit(run)}; go on there, or remove the folder")
        run.mkdir(parents=True, exist_ok=True)
        with atomic_path(run / COMMIT) as temporary:
            temporary.write_text(f"{commit}\n", encoding="utf-8")
        own = ("--model.pretrained", weights, "--out", str(run))
        trained = table.entries[table.entries[name].trained_as or name]
        train(configuration(table, trained, seed, root, *own), resume=resume)


def halve(data: Path, halved: Path) -> Path:
    """Write CamVid at half height and width: means of 2×2 pixels for images, every second pixel for masks."""
    if not halved.exists():
        with atomic_folder(halved) as folder:
            for path in (file for file in data.rglob("*") if file.is_file()):
                copy = folder / path.relative_to(data)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".png":
                    image = Image.open(path)
                    method = Image.Resampling.NEAREST if path.parent.name.endswith("annot") else Image.Resampling.BOX
                    image.resize((image.width // 2, image.height // 2), method).save(copy)
                else:
                    copy.write_bytes(path.read_bytes())
    return halved


def head() -> str:
    """Return the commit of this checkout; "-dirty" marks uncommitted changes, except in CSV files.

    Raises:
        CrispsegError: this is not a git checkout.
    """
    git = ["git", "-C", str(HERE)]
    done = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CrispsegError(
            f"{HERE} is in no git checkout, so results could not be traced to a commit; clone the project"
        )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)*.csv"], check=False)
    return done.stdout.strip() + ("-dirty" if changed.returncode else "")


def recorded_commit(run: Path) -> str | None:
    return (run / COMMIT).read_text(encoding="utf-8").strip() if (run / COMMIT).is_file() else None


def score_stage(table: Comparison, folder: Path) -> None:
    """Append a row for each finished run without one."""
    missing = []
    for name, seed, run in runs(table, folder):
        if has_row(table, name, seed):
            continue
        if finished(run):
            write_rows(table.scores, [*read_rows(table.scores), score_run(table, name, seed, run)])
        else:
            missing.append(run.name)
    if missing:
        print(f"not finished in {folder}: {', '.join(missing)}")


def has_row(table: Comparison, name: str, seed: int) -> bool:
    return any((row["model"], row["seed"]) == (name, str(seed)) for row in read_rows(table.scores))


def score_run(table: Comparison, name: str, seed: int, run: Path) -> Row:
    """Score the last weights of a run on the val split, with whole images in float32.

    Training scores in bf16, which moves mIoU by tenths of a point. A larger difference means another network or split.

    Raises:
        CrispsegError: mIoU differs from that in training by more than `TOLERANCE`, or the weight file is missing.
    """
    trained_as = table.entries[name].trained_as
    recorded = read_yaml(run / CONFIG)
    data = build_data(recorded["data"]).dataset("val")
    model = SegmentationModel.from_pretrained(run)  # the best weights; the last ones follow
    weights = read_checkpoint(run / LAST)[0]
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith(TRAINING_ONLY)})
    if trained_as:
        model.inference_scale = Fraction(1)
    boundary = BoundaryScores(model.info.num_classes, table.distances)
    seen = table.entries[name].seen
    scores = evaluate(model, data, device="cpu", workers=0, boundary=boundary, protocol=Protocol(scales=(seen,)))
    of_distances = boundary.scores().measures()["boundary_f"]
    miou, own = scores.miou, float(read_rows(run / "metrics.csv")[-1]["miou"])
    if not trained_as and not abs(miou - own) <= TOLERANCE:
        raise CrispsegError(f"{run}: mIoU is {miou:.2f}, but its own last one {own:.2f}; do its data or code differ?")
    return {
        "model": name,
        "seed": str(seed),
        "miou": f"{miou:.3f}",
        "miou_in_training": f"{own:.3f}",
        **{f"boundary_f_{at}": f"{f:.3f}" for at, f in zip(table.distances, of_distances, strict=True)},
        **{f"iou_{label}": f"{scores.iou[data.labels.names.index(label)]:.3f}" for label in table.classes},
        "parameters": str(count_parameters(model)),
        "multiply_adds": str(count_multiply_adds(model, *(round(seen * side) for side in table.size))),
        "recipe": recipe_hash(table.recipe),
        "weights": file_hash(recorded["model"]["pretrained"]),
        "workers": str(recorded["workers"]),
        "device": str(recorded["device"]),
        "commit": recorded_commit(run) or "unknown",
        "torch": torch.__version__,
    }


def file_hash(path: str) -> str:
    """Return a digest of a weight file, so that tables do not mix weights.

    Raises:
        CrispsegError: the file does not exist.
    """
    if not Path(path).is_file():
        raise CrispsegError(f"weight file {path} does not exist; put it at this path")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def time_stage(table: Comparison, rounds: int, threads: int) -> None:
    """Write the seconds per image of all networks of a table, timed in turns."""
    torch.set_num_threads(threads)
    size = table.size
    images = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    cpu = torch.device("cpu")

    def stages(entry: Entry) -> dict[str, Callable[[], Tensor]]:
        config = configuration(table, entry, 0, Path())
        built = config.model.build(len(config.data.label_set()), auxiliary=False)  # weights do not matter
        model: nn.Module = built.eval().to(memory_format=torch.channels_last)

        def larger(images: Tensor) -> Tensor:
            seen = [round(entry.seen * side) for side in size]
            return resize(model(resize(images, seen, align_corners=False)), size, align_corners=False)

        return {"forward": partial(larger if entry.seen > 1 else model, images)}

    contenders = [stages(entry) for entry in table.entries.values()]
    with torch.inference_mode():
        latencies = take_turns(contenders, rounds, WARMUP, cpu)
    machine = {"rounds": str(rounds), "threads": str(threads), "cpu": processor_name(cpu), "torch": torch.__version__}
    rows = []
    for name, latency in zip(table.entries, latencies, strict=True):
        forward = latency["forward"]
        seconds = {"seconds": f"{forward.median / 1000:.4f}", "p95": f"{forward.p95 / 1000:.4f}"}
        rows.append({"model": name, **seconds, **machine})
    write_rows(table.seconds, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("table", choices=list(tables.TABLES), help="table in tables.py")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    stage = stages.add_parser("train", parents=[table, folder], help="train missing runs")
    stage.add_argument("--data", required=True, help="folder of CamVid")
    stage.add_argument("--weights", required=True, help="ImageNet weights of the backbone")
    stages.add_parser("score", parents=[table, folder], help="append rows of finished runs to camvid/TABLE.csv")
    stage = stages.add_parser("time", parents=[table], help="write camvid/TABLE_seconds.csv")
    stage.add_argument("--rounds", type=int, default=30, help="images per network")
    stage.add_argument("--threads", type=int, default=2)
    stages.add_parser("report", parents=[table], help="print the table and write docs/assets/camvid_TABLE.png")
    given = parser.parse_args(argv)
    chosen = tables.TABLES[given.table]
    try:
        match given.stage:
            case "train":
                train_stage(chosen, given.runs, given.data, given.weights)
            case "score":
                score_stage(chosen, given.runs)
            case "time":
                time_stage(chosen, given.rounds, given.threads)
            case "report":
                report(chosen)
    except CrispsegError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
