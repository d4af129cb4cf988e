"""`crispseg benchmark MODEL ...`"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from crispseg.benchmarking import Settings, benchmark
from crispseg.benchmarking.report import as_json, as_tables
from crispseg.cli.parsing import Parser
from crispseg.cli.scoring import write_json
from crispseg.config.plugins import load_plugins
from crispseg.models import list_models
from crispseg.visualization.pages import check_json

STDOUT = Path("-")

MODELS = (
    f"models to measure, the first of which is the baseline: {', '.join(list_models())}, or one of them on another "
    "backbone, such as sfnet:resnet50, or with options of its own, such as 'sfnet{fuse: add}'; smp:ARCHITECTURE or "
    "smp:ARCHITECTURE:ENCODER of segmentation-models-pytorch, such as smp:FPN; timm:BACKBONE, a backbone alone; a "
    "run's folder, a saved model's folder, a hub id, or a file of crispseg export"
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg benchmark",
        description="Parameters, multiply-adds and latency of models, measured in turns under the same conditions. "
        "Weights are random unless a model was saved; nothing is downloaded for them.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODELS)
    group = parser.add_argument_group("The conditions; by default those of prediction")
    group.add_argument(
        "--size", type=int, nargs=2, default=list(Settings.size), metavar=("HEIGHT", "WIDTH"), help="in pixels"
    )
    group.add_class_arguments(Settings, as_group=False, skip={"size"})
    add = parser.add_argument
    add("--plugins", type=list[str], default=[], help="Python files to import first")
    add("--json", type=Path | None, default=None, help="also write all numbers to this file; - is the standard output")
    parsed = parser.parse(list(argv))

    keys = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{key: getattr(parsed, key) for key in keys} | {"size": tuple(parsed.size)})
    load_plugins(parsed.plugins)
    if parsed.json not in (None, STDOUT):
        check_json(parsed.json)
    report = benchmark(parsed.models, settings, console=Console(stderr=True))
    if parsed.json == STDOUT:
        print(json.dumps(as_json(report), indent=2))
    elif parsed.json is not None:
        write_json(parsed.json, as_json(report))
    # Tables leave the standard output to JSON.
    Console(stderr=parsed.json == STDOUT).print(as_tables(report), highlight=False)
