"""`crispseg evaluate RUN [--split S] [--protocol NAME] [--boundary] [--objects CLASS] [--thin] [--html FILE]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import crispseg
from crispseg.cli.objects import add_object_keys, check_object_keys, chosen_objects
from crispseg.cli.parsing import MODEL, Parser, add_backend_key
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.cli.scoring import (
    add_scoring_keys,
    add_thin_key,
    checked_splits,
    parse_scoring,
    write_json,
)
from crispseg.evaluation.boundary import DISTANCES
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.report import examples, report_page
from crispseg.evaluation.summary import score_table
from crispseg.inference.protocols import WHOLE
from crispseg.inference.runtime import open_model
from crispseg.io.images import check_picture, write_image
from crispseg.visualization.charts import draw_confusion
from crispseg.visualization.pages import write_page


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg evaluate",
        description="Score a trained model on the data it was trained on, on those of a FOLDER "
        "that follows it, or on others given by --data.",
    )
    parser.add_argument("run", help=MODEL)
    add_backend_key(parser)
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
    add_object_keys(parser, "score")
    add_thin_key(parser)
    add_scoring_keys(parser)
    add_protocol_keys(parser)
    parsed, data = parse_scoring(argv, parser)
    protocol = chosen_protocol(parsed)
    check_object_keys(parsed)
    if parsed.confusion:
        check_picture(parsed.confusion)
    model = open_model(parsed.run, parsed.backend)
    (dataset,) = checked_splits([model], data, parsed.split)
    evaluation = score_model(
        model,
        dataset,
        boundary=() if parsed.boundary is None else parsed.boundary or DISTANCES,
        boundary_iou=parsed.boundary is not None,
        objects=chosen_objects(parsed, dataset.labels),
        thin=parsed.thin,
        resamples=parsed.bootstrap,
        protocol=protocol,
        device=parsed.device,
        workers=parsed.workers,
    )
    found = evaluation.objects
    network = f"{model.info.name} on {model.info.backbone}"
    conditions = f"{data.name} {parsed.split}, {len(dataset)} images"
    seen = "" if protocol == WHOLE else f" ({protocol})"
    console = Console()
    console.print(f"{network}, {conditions}, in percent{seen}", highlight=False, soft_wrap=True)
    if found:
        numbered = dataset.instances(dataset.name_of(0)) is not None
        origin = "from instance masks" if numbered else "found in the masks"
        line = f"{found.truth.sum()} objects of class {parsed.objects}, {origin}; {found.predicted.sum()} predicted"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(score_table({"IoU": evaluation}))
    if parsed.confusion:
        write_image(parsed.confusion, draw_confusion(evaluation.scores.confusion, dataset.labels.names))
    if parsed.json:
        split = {"split": parsed.split, "images": len(dataset), "protocol": str(protocol)}
        write_json(parsed.json, {**split, **evaluation.as_json()})
    if parsed.html:
        conditions = f"{conditions}, protocol {protocol}, crispseg {crispseg.__version__}"
        chosen = examples(model, dataset, evaluation.scores, protocol)
        write_page(parsed.html, report_page(network, conditions, evaluation, *chosen))
