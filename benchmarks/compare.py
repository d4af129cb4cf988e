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
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from crispseg.benchmarking.report import processor_name
from crispseg.benchmarking.timing import Stopwatch, Turn, latencies, take_turns, wall_clock
from crispseg.cli.parsing import build_data, parse_training, read_yaml
from crispseg.counting import count_multiply_adds, count_parameters
from crispseg.errors import CrispsegError
from crispseg.evaluation import BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.models.saving import TRAINING_ONLY
from crispseg.training import TrainConfig, train
from crispseg.training.checkpoints import LAST, read_checkpoint
from crispseg.training.config import config_to_dict
from crispseg.training.run import CONFIG

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "camvid.yaml"
PEERS = HERE / "peers.py"
SCORES = HERE / "camvid_comparison.csv"
SECONDS = HERE / "camvid_seconds.csv"
PLOT = HERE.parent / "docs" / "assets" / "camvid_comparison.png"

COMMIT = "commit.txt"
HEIGHT, WIDTH = 360, 480  # of CamVid's images
DISTANCE = 3  # pixels, of the boundary F-score
WARMUP = 2  # rounds of `time` that do not count
TOLERANCE = 1.0  # mIoU points; see `score_run`
LOCAL = ("out", "data.root", "model.pretrained", "plugins", "workers", "loggers", "accelerator")
"""What may differ between runs of one recipe: it depends on the machine."""

Row = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """A compared network: how tables call it, its flags on top of the recipe, its seeds, and whose ablation it is."""

    label: str
    flags: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    ablates: str | None = None


ENTRIES = {
    "sfnet": Entry("SFNet", ()),
    "sfnet_add": Entry("SFNet, no flow", ("--model.fuse", "add"), seeds=(0,), ablates="sfnet"),
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
    file_hash(weights)  # it is there
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
    recorded = check_recipe(name, seed, run)
    data = build_data(recorded["data"]).dataset("val")
    model = SegmentationModel.from_pretrained(run)  # the best of its evaluations; the last is what is compared
    weights = read_checkpoint(run / LAST)[0]
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith(TRAINING_ONLY)})
    boundary = BoundaryScores(model.info.num_classes, (DISTANCE,))
    miou = evaluate(model, data, device="cpu", workers=0, boundary=boundary).miou
    own = float(read_rows(run / "metrics.csv")[-1]["miou"])
    if not abs(miou - own) <= TOLERANCE:
        raise CrispsegError(f"{run}: mIoU is {miou:.2f}, but its own last one {own:.2f}; do its data or code differ?")
    return {
        "model": name,
        "seed": str(seed),
        "miou": f"{miou:.3f}",
        "miou_in_training": f"{own:.3f}",
        "boundary_f": f"{boundary.scores().mean[DISTANCE]:.3f}",
        "parameters": str(count_parameters(model)),
        "multiply_adds": str(count_multiply_adds(model, HEIGHT, WIDTH)),
        "recipe": recipe_hash(),
        "weights": file_hash(recorded["model"]["pretrained"]),
        "workers": str(recorded["workers"]),
        "commit": commit,
        "torch": torch.__version__,
    }


def check_recipe(name: str, seed: int, run: Path) -> dict[str, Any]:
    """The settings of a run that followed the recipe.

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
    if not isinstance(found["model.pretrained"], str):
        differing.append("model.pretrained is no weight file")
    if differing:
        raise CrispsegError(f"{run} is not a run of {RECIPE.name} for {name}: {'; '.join(differing)}; train it anew")
    return recorded


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted keys."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        result |= {f"{key}.{name}": entry for name, entry in flat(value).items()} if nested else {key: value}
    return result


def recipe_hash() -> str:
    """Of the recipe's settings, so that tables do not mix recipes; comments do not count."""
    return hashlib.sha256(json.dumps(read_yaml(RECIPE), sort_keys=True).encode()).hexdigest()[:12]


def file_hash(path: str) -> str:
    """Of a weight file, so that tables do not mix weights.

    Raises:
        CrispsegError: it is not there.
    """
    if not Path(path).is_file():
        raise CrispsegError(f"weight file {path} does not exist; put it there, so that tables can say which it is")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def time_stage(rounds: int, threads: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write the seconds per image of all networks, measured in turns so that a busy moment hits all alike.

    Raises:
        CrispsegError: no rounds, or no threads.
    """
    if rounds < 1 or threads < 1:
        raise CrispsegError(f"rounds is {rounds} and threads is {threads}; both must be at least 1")
    torch.set_num_threads(threads)
    images = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    cpu = torch.device("cpu")

    def turn(name: str) -> Turn:
        config = configuration(name, 0, "")
        built = config.model.build(len(config.data.label_set()), auxiliary=False)  # weights do not matter
        model: nn.Module = built.eval().to(memory_format=torch.channels_last)

        def measure(watch: Stopwatch) -> None:
            watch("forward", model, images)

        return measure

    turns = [turn(name) for name in ENTRIES]
    with torch.inference_mode():
        laps = take_turns(turns, range(WARMUP + rounds), warmup=WARMUP, clock=wall_clock(cpu))
    machine = {"rounds": str(rounds), "threads": str(threads), "cpu": processor_name(cpu), "torch": torch.__version__}
    rows = []
    for name, taken in zip(ENTRIES, laps, strict=True):
        median, p95 = (f"{milliseconds / 1000:.4f}" for milliseconds in latencies(taken)["forward"])
        rows.append({"model": name, "seconds": median, "p95": p95, **machine})
    write_rows(SECONDS, rows)


def report_stage() -> None:
    """Print the table and draw the plot.

    Raises:
        CrispsegError: there are no rows, some are of another recipe, or they began with different weights.
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
    if len(weights := sources(rows, "weights")) > 1:
        raise CrispsegError(f"{SCORES} mixes weights: {', '.join(weights)}; keep the rows of one file")
    seconds = {row["model"]: row["seconds"] for row in read_rows(SECONDS)}
    table = Table("model", "seeds", "mIoU", f"F, {DISTANCE} px", "M parameters", "G multiply-adds", "s / image")
    for name, entry in ENTRIES.items():
        if own := [row for row in rows if row["model"] == name]:
            scores = [mean_and_sd(float(row[key]) for row in own) for key in ("miou", "boundary_f")]
            costs = [f"{int(own[0]['parameters']) / 1e6:.2f}", f"{int(own[0]['multiply_adds']) / 1e9:.2f}"]
            table.add_row(entry.label, str(len(own)), *scores, *costs, seconds.get(name, "not run"))
    Console(width=100).print(table)
    for line in differences(rows):
        print(line)
    if len(commits := sources(rows, "commit")) > 1:
        print(f"more than one commit, which may train differently: {', '.join(commits)}")
    draw(rows)


def sources(rows: Sequence[Row], key: str) -> list[str]:
    """Each value of a column, with the runs that have it in brackets."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        runs.setdefault(row[key], []).append(f"{row['model']}-{row['seed']}")
    return [f"{value} ({', '.join(names)})" for value, names in runs.items()]


def differences(rows: Sequence[Row]) -> list[str]:
    """What a network has over its ablation at each seed of both; means of different seeds would be no comparison."""
    found = {(row["model"], row["seed"]): row for row in rows}
    lines = []
    for (name, seed), row in found.items():
        base = ENTRIES[name].ablates
        if base and (whole := found.get((base, seed))):
            miou, f = (float(whole[key]) - float(row[key]) for key in ("miou", "boundary_f"))
            labels = f"{ENTRIES[base].label} − {ENTRIES[name].label}"
            lines.append(f"{labels}, seed {seed}: mIoU {miou:+.1f}, F {f:+.1f}")
    return lines


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


def commit_hash(text: str) -> str:
    """For `--commit`."""
    if not re.fullmatch(r"[0-9a-f]{7,40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no commit; give 7 to 40 hexadecimal digits of its hash")
    return text


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
    stage.add_argument("--commit", type=commit_hash, help="that trained the runs, where they do not say")
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
