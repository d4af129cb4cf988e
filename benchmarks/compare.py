"""SFNet beside its own ablation and two networks of another library, trained on CamVid by one recipe.

    python benchmarks/compare.py train --runs runs/camvid --data CAMVID --weights tf_efficientnet_lite0.safetensors
    python benchmarks/compare.py score --runs runs/camvid
    python benchmarks/compare.py time
    python benchmarks/compare.py report

`train` and `score` do what is missing, so both can be stopped and started again. README.md says what is measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from crispseg.cli.parsing import build_data, parse_training, read_yaml
from crispseg.counting import count_multiply_adds, count_parameters
from crispseg.data import SegmentationDataset, eval_transform
from crispseg.data.loading import eval_loader
from crispseg.errors import CrispsegError
from crispseg.evaluation import BoundaryScores, SegmentationScores
from crispseg.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.models.saving import TRAINING_ONLY
from crispseg.training import TrainConfig, train
from crispseg.training.config import config_to_dict
from crispseg.training.run import CONFIG, LAST, read_checkpoint

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "camvid.yaml"
PEERS = HERE / "peers.py"
SCORES = HERE / "camvid_comparison.csv"
SECONDS = HERE / "camvid_seconds.csv"
PLOT = HERE.parent / "docs" / "assets" / "camvid_comparison.png"

COMMIT = "commit.txt"
HEIGHT, WIDTH = 360, 480  # of CamVid's images
DISTANCE = 3  # pixels, of the boundary F-score
TOLERANCE = 1.0  # mIoU points; see `score_run`
LOCAL = ("out", "data.root", "model.pretrained", "plugins", "workers", "loggers", "accelerator", "devices")
"""What may differ between runs of one recipe: it depends on the machine."""

Row = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """A compared network: how tables call it, its flags on top of the recipe, and its seeds."""

    label: str
    flags: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)


ENTRIES = {
    "sfnet": Entry("SFNet", ()),
    "sfnet_add": Entry("SFNet, no flow", ("--model.fuse", "add"), seeds=(0,)),
    "smp_fpn": Entry("FPN (smp)", ("--model", "smp_fpn")),
    "smp_deeplabv3plus": Entry("DeepLabV3+ (smp)", ("--model", "smp_deeplabv3plus")),
}


def configuration(name: str, seed: int, data: str, *flags: str) -> TrainConfig:
    """The run of one network and seed, as `crispseg train` makes it from the recipe and flags."""
    argv = [str(RECIPE), "--plugins", str(PEERS), *ENTRIES[name].flags, "--seed", str(seed), "--data.root", data]
    return parse_training([*argv, "--loggers", "[]", *flags], {}, prog="compare.py train", description="")


def runs(folder: Path) -> list[tuple[str, int, Path]]:
    """All runs there should be: name, seed and folder."""
    return [(name, seed, folder / f"{name}-{seed}") for name, entry in ENTRIES.items() for seed in entry.seeds]


def finished(run: Path) -> bool:
    return (run / "model").is_dir()


def train_stage(folder: Path, data: str, weights: str) -> None:
    """Train what is missing, one run after the other; go on with one that was interrupted."""
    commit = head()
    for name, seed, run in runs(folder):
        if finished(run):
            continue
        resume = (run / LAST).is_file()
        if resume and recorded_commit(run) != commit:
            raise CrispsegError(f"{run} was begun at commit {recorded_commit(run)}; go on there, or remove the folder")
        run.mkdir(parents=True, exist_ok=True)
        with atomic_path(run / COMMIT) as temporary:
            temporary.write_text(f"{commit}\n", encoding="utf-8")
        train(configuration(name, seed, data, "--model.pretrained", weights, "--out", str(run)), resume=resume)


def head() -> str:
    """The commit of this checkout; "-dirty" marks changes that are in none.

    Raises:
        CrispsegError: it is no checkout.
    """
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CrispsegError(
            f"{HERE} is in no git checkout, so results could not be traced to a commit; clone the project"
        )
    return done.stdout.strip()


def recorded_commit(run: Path) -> str | None:
    return (run / COMMIT).read_text(encoding="utf-8").strip() if (run / COMMIT).is_file() else None


def score_stage(folder: Path, commit: str | None) -> None:
    """Append a row for each finished run that has none.

    Args:
        folder: of the runs.
        commit: that trained the runs which `compare.py train` did not make.
    """
    missing = []
    for name, seed, run in runs(folder):
        rows = read_rows(SCORES)
        if any((row["model"], row["seed"]) == (name, str(seed)) for row in rows):
            continue
        if finished(run):
            write_rows(SCORES, [*rows, score_run(name, seed, run, commit)])
        else:
            missing.append(run.name)
    if missing:
        print(f"not finished in {folder}: {', '.join(missing)}")


def score_run(name: str, seed: int, run: Path, commit: str | None) -> Row:
    """One row: the weights after the last epoch on the val split, whole images in float32.

    In training the recipe scores in bf16, which moves mIoU by tenths of a point; more means another network or split.

    Raises:
        CrispsegError: the run did not follow the recipe, its own last mIoU is another, or its commit is not known.
    """
    commit = recorded_commit(run) or commit
    if commit is None:
        raise CrispsegError(f"{run} does not say which commit trained it; give --commit")
    data = check_recipe(name, seed, run)
    model = SegmentationModel.from_pretrained(run)  # the best of its evaluations; the last is what is compared
    weights = read_checkpoint(run / LAST)[0]
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith(TRAINING_ONLY)})
    miou, boundary = evaluate(model, data)
    own = float(read_rows(run / "metrics.csv")[-1]["miou"])
    if not abs(miou - own) <= TOLERANCE:
        raise CrispsegError(f"{run}: mIoU is {miou:.2f}, but its own last one {own:.2f}; do its data or code differ?")
    return {
        "model": name,
        "seed": str(seed),
        "miou": f"{miou:.3f}",
        "miou_in_training": f"{own:.3f}",
        "boundary_f": f"{boundary:.3f}",
        "parameters": str(count_parameters(model)),
        "multiply_adds": str(count_multiply_adds(model, HEIGHT, WIDTH)),
        "recipe": recipe_hash(),
        "commit": commit,
        "torch": torch.__version__,
    }


def check_recipe(name: str, seed: int, run: Path) -> SegmentationDataset:
    """Make sure that a run followed the recipe; its val split.

    Raises:
        CrispsegError: a setting that is not the machine's differs.
    """
    recorded = read_yaml(run / CONFIG)
    wanted, found = flat(config_to_dict(configuration(name, seed, recorded["data"]["root"]))), flat(recorded)
    differing = [
        f"{key} is {found[key]!r}, not {value!r}"
        for key, value in wanted.items()
        if key not in LOCAL and found.get(key, value) != value  # a later version may have settings that it did not
    ]
    if not found["model.pretrained"]:
        differing.append("model.pretrained is not given")
    if differing:
        raise CrispsegError(f"{run} is not a run of {RECIPE.name} for {name}: {'; '.join(differing)}; train it anew")
    return build_data(recorded["data"]).dataset("val")


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted keys."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        result |= {f"{key}.{name}": entry for name, entry in flat(value).items()} if nested else {key: value}
    return result


def evaluate(model: SegmentationModel, dataset: SegmentationDataset) -> tuple[float, float]:
    """mIoU and mean boundary F-score in percent."""
    matrix = SegmentationScores(model.info.num_classes)
    boundary = BoundaryScores(model.info.num_classes, (DISTANCE,))
    loader = eval_loader(dataset, eval_transform(model.info.mean, model.info.std, model.info.in_chans), workers=0)
    model = model.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for images, labels in track(loader, "Scoring", console=Console(stderr=True), transient=True):
            prediction = model(images.contiguous(memory_format=torch.channels_last)).argmax(1)
            matrix.update(prediction, labels)
            boundary.update(prediction, labels)
    return matrix.scores().miou, boundary.scores().mean[DISTANCE]


def recipe_hash() -> str:
    """Of the recipe's settings, so that tables do not mix recipes; comments do not count."""
    return hashlib.sha256(json.dumps(read_yaml(RECIPE), sort_keys=True).encode()).hexdigest()[:12]


def time_stage(rounds: int, threads: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write the seconds per image of all networks, measured in turns so that a busy moment hits all alike.

    Raises:
        CrispsegError: no rounds, or no threads.
    """
    if rounds < 1 or threads < 1:
        raise CrispsegError(f"rounds is {rounds} and threads is {threads}; both must be at least 1")
    torch.set_num_threads(threads)
    images = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    models = {}
    for name in ENTRIES:
        config = configuration(name, 0, "")
        model = config.model.build(len(config.data.label_set()), auxiliary=False)  # weights do not matter
        models[name] = model.eval().to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(-2, rounds):  # two to warm up
            for name, model in models.items():
                start = time.perf_counter()
                model(images)
                if turn >= 0:
                    seconds[name].append(time.perf_counter() - start)
    machine = {"rounds": str(rounds), "threads": str(threads), "cpu": cpu(), "torch": torch.__version__}
    rows = [{"model": name, "seconds": f"{statistics.median(taken):.4f}", **machine} for name, taken in seconds.items()]
    write_rows(SECONDS, rows)


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report_stage() -> None:
    """Print the table and draw the plot.

    Raises:
        CrispsegError: there are no rows, or some are of another recipe.
    """
    rows = read_rows(SCORES)
    if not rows:
        raise CrispsegError(f"{SCORES} has no rows; train and score first")
    for row in rows:
        if row["recipe"] != recipe_hash():
            raise CrispsegError(
                f"{SCORES}: {row['model']} with seed {row['seed']} followed recipe {row['recipe']}, but {RECIPE.name} "
                f"is {recipe_hash()}; remove the row and train anew"
            )
    seconds = {row["model"]: row["seconds"] for row in read_rows(SECONDS)}
    table = Table("model", "seeds", "mIoU", f"F, {DISTANCE} px", "M parameters", "G multiply-adds", "s / image")
    for name, entry in ENTRIES.items():
        if own := [row for row in rows if row["model"] == name]:
            scores = [mean_and_sd(float(row[key]) for row in own) for key in ("miou", "boundary_f")]
            costs = [f"{int(own[0]['parameters']) / 1e6:.2f}", f"{int(own[0]['multiply_adds']) / 1e9:.2f}"]
            table.add_row(entry.label, str(len(own)), *scores, *costs, seconds.get(name, "not run"))
    Console(width=100).print(table)
    draw(rows)


def mean_and_sd(values: Iterable[float]) -> str:
    """ "70.1 ± 0.4", the sample's standard deviation; without it for a single value."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def draw(rows: Sequence[Row]) -> None:
    """Every seed as a dot, every mean as a line, for both scores."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [name for name in ENTRIES if any(row["model"] == name for row in rows)]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        titles = {"miou": "mIoU (%)", "boundary_f": f"boundary F-score at {DISTANCE} px (%)"}
        for axes, (key, title) in zip(panels, titles.items(), strict=True):
            for at, name in enumerate(names):
                values = [float(row[key]) for row in rows if row["model"] == name]
                axes.plot(values, [at] * len(values), "o", color="tab:blue", markersize=6, alpha=0.7)
                axes.vlines(statistics.fmean(values), at - 0.3, at + 0.3, color="black", linewidth=1.5)
            axes.set_xlabel(title)
            axes.grid(axis="x", alpha=0.3)
            axes.margins(x=0.1)
        costs = {row["model"]: int(row["multiply_adds"]) / 1e9 for row in rows}
        panels[0].set_yticks(range(len(names)), [f"{ENTRIES[n].label}\n{costs[n]:.1f} G multiply-adds" for n in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        figure.supxlabel("CamVid val; a dot is a seed, a line the mean", fontsize=10)
        with atomic_path(PLOT) as temporary:
            figure.savefig(temporary, dpi=150)


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file, whole at any time."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("train", help="train the runs that are missing")
    stage.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    stage.add_argument("--data", required=True, help="CamVid's folder")
    stage.add_argument("--weights", required=True, help="ImageNet weights of the backbone")
    stage = stages.add_parser("score", help=f"append rows of finished runs to {SCORES.name}")
    stage.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    stage.add_argument("--commit", help="that trained the runs, where they do not say")
    stage = stages.add_parser("time", help=f"write {SECONDS.name}")
    stage.add_argument("--rounds", type=int, default=30, help="images a network")
    stage.add_argument("--threads", type=int, default=2)
    stages.add_parser("report", help=f"print the table and write {PLOT.name}")
    given = parser.parse_args(argv)
    try:
        match given.stage:
            case "train":
                train_stage(given.runs, given.data, given.weights)
            case "score":
                score_stage(given.runs, given.commit)
            case "time":
                time_stage(given.rounds, given.threads)
            case "report":
                report_stage()
    except CrispsegError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
