"""`crispseg benchmark MODEL ...`"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from crispseg.benchmarking import Conditions, benchmark
from crispseg.cli.parsing import Parser
from crispseg.cli.scoring import write_json
from crispseg.config.plugins import load_plugins
from crispseg.visualization.pages import check_json

STDOUT = Path("-")


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg benchmark",
        description="Parameters, multiply-adds and latency of models, measured in turns under the same conditions.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a network, such as sfnet, sfnet:resnet50 or 'sfnet{fuse: add}'; or a run, a saved model, a hub id or an "
        "exported file. The first one is the baseline",
    )
    group = parser.add_argument_group("The conditions; the defaults are those of prediction")
    group.add_argument(
        "--size", type=int, nargs=2, default=list(Conditions.size), metavar=("HEIGHT", "WIDTH"), help="in pixels"
    )
    group.add_class_arguments(Conditions, as_group=False, skip={"size"})
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parser.add_argument("--json", type=Path | None, default=None, help="also write all numbers to this file, or to -")
    parsed = parser.parse(list(argv))

    keys = [field.name for field in dataclasses.fields(Conditions)]
    conditions = Conditions(**{key: getattr(parsed, key) for key in keys} | {"size": tuple(parsed.size)})
    load_plugins(parsed.plugins)
    if parsed.json not in (None, STDOUT):
        check_json(parsed.json)
    report = benchmark(parsed.models, conditions, console=Console(stderr=True))
    if parsed.json == STDOUT:
        print(json.dumps(report.to_dict(), indent=2))
    elif parsed.json is not None:
        write_json(parsed.json, report.to_dict())
    Console(stderr=parsed.json == STDOUT).print(report.tables(), highlight=False)
