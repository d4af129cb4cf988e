"""`crispseg evaluate RUN [--split S] [--protocol NAME] [--json FILE]`"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from crispseg.cli.parsing import Parser, Tree, expand_names, parse_data, read_yaml, take_flag
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.data import LabelSet, check_split
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import BoundaryF, BoundaryScores
from crispseg.evaluation.evaluate import evaluate, score_table
from crispseg.evaluation.scores import Scores
from crispseg.files import atomic_path
from crispseg.inference.protocols import WHOLE
from crispseg.models import SegmentationModel
from crispseg.models.saving import read_info
from crispseg.plugins import load_plugins
from crispseg.training.run import CONFIG


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg evaluate",
        description="Score a trained model on the data it was trained on, or on others given by --data.",
    )
    parser.add_argument("run", help="a run's folder, a saved model's folder or a hub id")
    parser.add_argument("--split", default="val", help="which split")
    parser.add_argument(
        "--boundary", type=int, nargs="+", metavar="PIXELS", help="also the boundary F-score within distances: 3 5 9 12"
    )
    add_protocol_keys(parser)
    parser.add_argument("--json", type=Path | None, default=None, help="also write the scores to this file")
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that load data")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    if not argv or argv[0].startswith("-"):
        parser.add_argument("--data", help="data other than the recorded ones; brings --data.* keys")
        parser.parse(argv)  # --help, or what is missing
        raise CrispsegError("give the run first: crispseg evaluate RUN")

    base = recorded_data(argv[0])
    if "data" not in base and take_flag(expand_names(argv), "--data.name") is None:
        raise CrispsegError(f"{argv[0]} does not say which data it was trained on; give --data")
    parsed, data = parse_data(argv, base, parser)
    protocol = chosen_protocol(parsed)
    load_plugins(parsed.plugins)
    model = SegmentationModel.from_pretrained(parsed.run)
    dataset = data.dataset(parsed.split).with_channels(model.info.in_chans)
    check_split(dataset, parsed.split)
    names, own = dataset.labels.names, model.info.class_names
    if own and len(own) == len(names) and own != names:
        Console(stderr=True).print(
            f"the model's classes are {', '.join(own)}; those of the data have other names",
            style="yellow",
            soft_wrap=True,
        )
    metric = BoundaryScores(model.info.num_classes, parsed.boundary) if parsed.boundary else None
    scores = evaluate(model, dataset, device=parsed.device, workers=parsed.workers, boundary=metric, protocol=protocol)
    boundary = metric.scores() if metric else None
    title = (
        f"{model.info.name} on {model.info.backbone}, {data.name} {parsed.split}, {len(dataset)} images, IoU in percent"
    )
    if protocol != WHOLE:
        title += f" ({protocol})"
    console = Console()
    console.print(title, highlight=False, soft_wrap=True)
    console.print(score_table(dataset.labels, {"IoU": scores}, boundary))
    if parsed.json:
        with atomic_path(parsed.json) as temporary:
            split = {"split": parsed.split, "images": len(dataset), "protocol": str(protocol)}
            summary = {**split, **as_json(scores, dataset.labels, boundary)}
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def recorded_data(run: str) -> Tree:
    """The `data` settings of a run or a saved model, as YAML has them; empty if it has none."""
    tree = read_yaml(Path(run) / CONFIG) if (Path(run) / CONFIG).is_file() else read_info(run).recipe
    return {"data": tree["data"]} if "data" in tree else {}


def as_json(scores: Scores, labels: LabelSet, boundary: BoundaryF | None = None) -> dict[str, Any]:
    """Scores as plain numbers in percent; `null` for a class that does not occur, or has no boundary."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(float(value), 4)

    summary: dict[str, Any] = {
        "miou": number(scores.miou),
        "pixel_accuracy": number(scores.pixel_accuracy),
        "iou": {name: number(value) for name, value in zip(labels.names, scores.iou, strict=True)},
        "confusion": scores.confusion.tolist(),
    }
    if boundary:
        summary["boundary_f"] = {str(distance): number(mean) for distance, mean in boundary.mean.items()}
    return summary
