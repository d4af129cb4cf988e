"""`crispseg evaluate RUN [--split S] [--protocol NAME] [--boundary] [--json FILE] [--html FILE]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import crispseg
from crispseg.cli.parsing import Parser
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.cli.scoring import add_scoring_keys, checked_split, parse_scoring
from crispseg.errors import CrispsegError
from crispseg.evaluation.boundary import DISTANCES, BoundaryF, BoundaryScores
from crispseg.evaluation.boundary_iou import BoundaryIoU, BoundaryIoUScores
from crispseg.evaluation.confusion import draw_confusion
from crispseg.evaluation.evaluate import evaluate, intervals, score_table
from crispseg.evaluation.per_image import LEVEL
from crispseg.evaluation.report import examples, report_page
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.wording import number
from crispseg.files import atomic_path, writable_file
from crispseg.imaging import SUFFIXES, write_image
from crispseg.inference.protocols import WHOLE
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.pages import write_page


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg evaluate",
        description="Score a trained model on the data it was trained on, or on others given by --data.",
    )
    parser.add_argument("run", help="a run's folder, a saved model's folder or a hub id")
    parser.add_argument(
        "--boundary",
        type=int,
        nargs="*",
        metavar="PIXELS",
        help=f"also Boundary IoU and the boundary F-score within distances, by default {' '.join(map(str, DISTANCES))}",
    )
    parser.add_argument(
        "--confusion", type=Path | None, default=None, metavar="FILE.png", help="also draw the confusion matrix"
    )
    add_scoring_keys(parser)
    add_protocol_keys(parser)
    parsed, data = parse_scoring(argv, parser)
    protocol = chosen_protocol(parsed)
    if parsed.confusion:
        if parsed.confusion.suffix.lower() not in SUFFIXES:
            raise CrispsegError(f"cannot draw {parsed.confusion}: give a file that ends in .png or .jpg")
        writable_file(parsed.confusion)
    model = SegmentationModel.from_pretrained(parsed.run)
    dataset = checked_split(model, data, parsed.split)
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


def as_json(
    scores: Scores, labels: LabelSet, boundary: BoundaryF | None = None, boundary_iou: BoundaryIoU | None = None
) -> dict[str, Any]:
    """Scores as plain numbers in percent, as docs/metrics.md lists them; `null` for a class that does not occur, or has
    no boundary."""
    summary: dict[str, Any] = {
        "miou": number(scores.miou),
        "mean_accuracy": number(scores.mean_accuracy),
        "frequency_weighted_iou": number(scores.frequency_weighted_iou),
        "pixel_accuracy": number(scores.pixel_accuracy),
        "iou": dict(zip(labels.names, map(number, scores.iou), strict=True)),
        "accuracy": dict(zip(labels.names, map(number, scores.accuracy), strict=True)),
        "confusion": scores.confusion.tolist(),
    }
    if boundary:
        summary["boundary_f"] = {str(distance): number(mean) for distance, mean in boundary.mean.items()}
        summary["boundary_f_of_classes"] = {
            str(distance): dict(zip(labels.names, map(number, f), strict=True))
            for distance, f in zip(boundary.distances, boundary.f, strict=True)
        }
        summary["boundary_f_mean"] = number(boundary.mean_over_distances)
    if boundary_iou:
        summary["boundary_iou"] = number(boundary_iou.mean)
        summary["boundary_iou_of_classes"] = dict(zip(labels.names, map(number, boundary_iou.iou), strict=True))
    return summary


def intervals_as_json(
    bounds: dict[str, NDArray[np.float64]], labels: LabelSet, distances: Sequence[int]
) -> dict[str, Any]:
    """What `intervals` gives as lists `[low, high]`, under the names that `as_json` has for the scores."""
    keys: dict[str, Sequence[object]] = {"iou": labels.names, "accuracy": labels.names, "boundary_f": distances}

    def pair(values: NDArray[np.float64]) -> list[float | None]:
        return [number(value) for value in values]

    return {
        name: {str(key): pair(each) for key, each in zip(keys[name], values.T, strict=True)}
        if name in keys
        else pair(values)
        for name, values in bounds.items()
    }
