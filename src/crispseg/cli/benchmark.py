"""`crispseg benchmark MODEL ...`"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from rich.console import Console

from crispseg.benchmarking import Settings, benchmark
from crispseg.benchmarking.report import as_json, as_tables
from crispseg.benchmarking.run import Report
from crispseg.charts import new_figure
from crispseg.cli.compare import short_names
from crispseg.cli.parsing import Parser
from crispseg.files import atomic_path
from crispseg.imaging import check_picture, write_image
from crispseg.inspection.figures import speed_figure
from crispseg.models import list_models
from crispseg.plugins import load_plugins

STDOUT = Path("-")

MODELS = (
    f"models to measure, the first of which is the baseline: {', '.join(list_models())}, or one of them on another "
    "backbone, such as sfnet:resnet50, or with options of its own, such as 'sfnet{fuse: add}'; smp:ARCHITECTURE or "
    "smp:ARCHITECTURE:ENCODER of segmentation-models-pytorch, such as smp:FPN; timm:BACKBONE, a backbone alone; a "
    "run's folder, a saved model's folder or a hub id"
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    default = Settings()
    parser = Parser(
        prog="crispseg benchmark",
        description="Parameters, multiply-adds and latency of models, measured in turns under the same conditions. "
        "Weights are random unless a model was saved; nothing is downloaded for them.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODELS)
    add = parser.add_argument_group("The models").add_argument
    add("--backbone", default=default.backbone, help="of models whose name has none")
    add("--num_classes", type=int, default=default.num_classes, help="of models that were not saved with their own")
    add("--plugins", type=list[str], default=[], help="Python files to import first")
    add = parser.add_argument_group("The images").add_argument
    add("--size", type=int, nargs=2, default=list(default.size), metavar=("HEIGHT", "WIDTH"), help="in pixels")
    add("--batch", type=int, default=default.batch, help="images at a time; prediction takes one")
    add("--seed", type=int, default=default.seed, help="of the random images and weights")
    add = parser.add_argument_group("How they are computed").add_argument
    add("--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one")
    add("--threads", type=int | None, default=None, help="of the CPU; by default as many as PyTorch chooses")
    add("--dtype", type=Literal["fp32", "bf16"], default=default.dtype, help="bf16 convolves in bfloat16")
    add("--fold", type=bool, default=default.fold, help="merge batch norms into convolutions, as prediction does")
    add("--channels_last", type=bool, default=default.channels_last, help="lay out memory so, as prediction does")
    add = parser.add_argument_group("The measurement").add_argument
    add("--repeats", type=int, default=default.repeats, help="rounds that count; in each, every model takes its turn")
    add("--warmup", type=int, default=default.warmup, help="rounds before, which do not count")
    add("--json", type=Path | None, default=None, help="also write all numbers to this file; - is the standard output")
    about = "also draw speed against the val mIoU that runs keep, as a PNG; all models must be runs"
    add("--figure", type=Path | None, default=None, metavar="PNG", help=about)
    parsed = parser.parse(list(argv))

    keys = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{key: getattr(parsed, key) for key in keys} | {"size": tuple(parsed.size)})
    load_plugins(parsed.plugins)
    drawn = parsed.figure is not None
    if drawn:
        check_picture(parsed.figure)
        new_figure(1, 1)  # says before the work that matplotlib is missing
    # The file is opened now, so that a path that cannot be written is found before the work.
    to_file = parsed.json is not None and parsed.json != STDOUT
    with atomic_path(parsed.json) if to_file else nullcontext() as file:
        report = benchmark(parsed.models, settings, scored=drawn, console=Console(stderr=True))
        text = json.dumps(as_json(report), indent=2) + "\n"
        if file is not None:
            file.write_text(text, encoding="utf-8")
    if parsed.json == STDOUT:
        print(text, end="")
    # Tables leave the standard output to JSON.
    Console(stderr=parsed.json == STDOUT).print(as_tables(report), highlight=False)
    if drawn:
        write_image(parsed.figure, speed_figure(speeds_and_scores(report)))


def speeds_and_scores(report: Report) -> list[tuple[str, float, float]]:
    """Name, images a second from image to labels, and mIoU in percent of each model that says it."""
    names = short_names([row.model for row in report.rows])
    return [
        (name, 1000 * report.settings.batch / row.milliseconds["total"].median, row.miou)
        for name, row in zip(names, report.rows, strict=True)
        if row.miou is not None
    ]
