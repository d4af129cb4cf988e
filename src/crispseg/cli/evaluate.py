"""`crispseg evaluate RUN [--split S] [--protocol NAME] [--boundary] [--json FILE] [--html FILE]`"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import crispseg
from crispseg.cli.parsing import Parser, Tree, expand_names, parse_data, read_yaml, take_flag
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.data import LabelSet, check_split
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import DISTANCES, BoundaryF, BoundaryScores
from crispseg.evaluation.boundary_iou import BoundaryIoU, BoundaryIoUScores
from crispseg.evaluation.confusion import draw_confusion
from crispseg.evaluation.evaluate import evaluate, intervals, score_table
from crispseg.evaluation.per_image import LEVEL, RESAMPLES
from crispseg.evaluation.report import examples, report_page
from crispseg.evaluation.scores import Scores
from crispseg.files import atomic_path, writable_folder
from crispseg.imaging import SUFFIXES, write_image
from crispseg.inference.protocols import WHOLE
from crispseg.models import SegmentationModel
from crispseg.models.saving import read_info
from crispseg.pages import check_page, write_page
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
        "--boundary",
        type=int,
        nargs="*",
        metavar="PIXELS",
        help=f"also Boundary IoU and the boundary F-score within distances, by default {' '.join(map(str, DISTANCES))}",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help=f"resamples for the {LEVEL:.0f} %% intervals over images; 0 for none",
    )
    parser.add_argument(
        "--confusion", type=Path | None, default=None, metavar="FILE.png", help="also draw the confusion matrix"
    )
    add_protocol_keys(parser)
    parser.add_argument("--json", type=Path | None, default=None, help="also write the scores to this file")
    parser.add_argument(
        "--html",
        type=Path | None,
        default=None,
        metavar="FILE.html",
        help="also write a page with the scores, the confusion matrix, and the best and worst images",
    )
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
    if parsed.bootstrap < 0:
        raise CrispsegError(f"bootstrap is {parsed.bootstrap}; give the number of resamples, or 0 for no intervals")
    if parsed.confusion and parsed.confusion.suffix.lower() not in SUFFIXES:
        raise CrispsegError(f"cannot draw {parsed.confusion}: give a file that ends in .png or .jpg")
    if parsed.html:
        check_page(parsed.html)
    for file in (parsed.confusion, parsed.json):
        if file:
            writable_folder(file.parent)
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
    boundary, boundary_iou = None, None
    if parsed.boundary is not None:
        boundary = BoundaryScores(model.info.num_classes, parsed.boundary or DISTANCES)
        boundary_iou = BoundaryIoUScores(model.info.num_classes)
    scores = evaluate(
        model,
        dataset,
        device=parsed.device,
        workers=parsed.workers,
        boundary=boundary,
        boundary_iou=boundary_iou,
        protocol=protocol,
    )
    boundaries = boundary and boundary.scores(), boundary_iou and boundary_iou.scores()
    bounds = intervals(scores, *boundaries, resamples=parsed.bootstrap)
    network = f"{model.info.name} on {model.info.backbone}"
    conditions = f"{data.name} {parsed.split}, {len(dataset)} images"
    seen = "" if protocol == WHOLE else f" ({protocol})"
    console = Console()
    console.print(f"{network}, {conditions}, in percent{seen}", highlight=False, soft_wrap=True)
    console.print(score_table(dataset.labels, {"IoU": scores}, *boundaries, bounds))
    if parsed.confusion:
        write_image(parsed.confusion, draw_confusion(scores.confusion, dataset.labels.names))
    if parsed.json:
        with atomic_path(parsed.json) as temporary:
            split = {"split": parsed.split, "images": len(dataset), "protocol": str(protocol)}
            summary = {**split, **as_json(scores, dataset.labels, *boundaries)}
            if bounds:
                summary["intervals"] = {"level": LEVEL, "resamples": parsed.bootstrap} | intervals_as_json(
                    bounds, dataset.labels, parsed.boundary or DISTANCES
                )
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if parsed.html:
        chosen = examples(model, dataset, scores, protocol)
        conditions = f"{conditions}, protocol {protocol}, crispseg {crispseg.__version__}"
        write_page(parsed.html, report_page(network, conditions, dataset.labels, scores, *boundaries, bounds, *chosen))


def recorded_data(run: str) -> Tree:
    """The `data` settings of a run or a saved model, as YAML has them; empty if it has none."""
    tree = read_yaml(Path(run) / CONFIG) if (Path(run) / CONFIG).is_file() else read_info(run).recipe
    return {"data": tree["data"]} if "data" in tree else {}


def as_json(
    scores: Scores, labels: LabelSet, boundary: BoundaryF | None = None, boundary_iou: BoundaryIoU | None = None
) -> dict[str, Any]:
    """Scores as plain numbers in percent, as docs/metrics.md lists them; `null` for a class that does not occur, or has
    no boundary."""
    summary: dict[str, Any] = {
        "miou": _number(scores.miou),
        "mean_accuracy": _number(scores.mean_accuracy),
        "frequency_weighted_iou": _number(scores.frequency_weighted_iou),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "iou": dict(zip(labels.names, map(_number, scores.iou), strict=True)),
        "accuracy": dict(zip(labels.names, map(_number, scores.accuracy), strict=True)),
        "confusion": scores.confusion.tolist(),
    }
    if boundary:
        summary["boundary_f"] = {str(distance): _number(mean) for distance, mean in boundary.mean.items()}
        summary["boundary_f_of_classes"] = {
            str(distance): dict(zip(labels.names, map(_number, f), strict=True))
            for distance, f in zip(boundary.distances, boundary.f, strict=True)
        }
        summary["boundary_f_mean"] = _number(boundary.mean_over_distances)
    if boundary_iou:
        summary["boundary_iou"] = _number(boundary_iou.mean)
        summary["boundary_iou_of_classes"] = dict(zip(labels.names, map(_number, boundary_iou.iou), strict=True))
    return summary


def intervals_as_json(
    bounds: dict[str, NDArray[np.float64]], labels: LabelSet, distances: Sequence[int]
) -> dict[str, Any]:
    """What `intervals` gives as lists `[low, high]`, under the names that `as_json` has for the scores."""
    keys: dict[str, Sequence[object]] = {"iou": labels.names, "accuracy": labels.names, "boundary_f": distances}

    def pair(values: NDArray[np.float64]) -> list[float | None]:
        return [_number(value) for value in values]

    return {
        name: {str(key): pair(each) for key, each in zip(keys[name], values.T, strict=True)}
        if name in keys
        else pair(values)
        for name, values in bounds.items()
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
