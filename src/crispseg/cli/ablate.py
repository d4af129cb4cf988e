"""`crispseg ablate RUN [--only NAME ...] [--split S] [--json FILE] [--html FILE]`"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from crispseg.cli.parsing import RUN, Parser
from crispseg.cli.scoring import add_scoring_keys, checked_splits, parse_scoring, write_json
from crispseg.evaluation.comparison import ModelComparison
from crispseg.evaluation.report import comparison_page
from crispseg.inspection.ablation import ablate, ablations_of
from crispseg.models import SegmentationModel
from crispseg.visualization.pages import write_page

ABOUT = (
    "The trained model, and its scores when a quantity that it computes is changed. Nothing is trained again: this "
    "tells what the model makes of the quantity."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg ablate",
        description="Does the alignment help on your data? Score a trained model with its learned flow, sampled "
        "points, descriptors or refinement scaled, shuffled or left out, beside the model as it is. Nothing is trained "
        "again. The data are those of the run, of a FOLDER that follows it, or others given by --data.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these ablations; by default all that the model has")
    add_scoring_keys(parser)
    parsed, data = parse_scoring(argv, parser)
    model = SegmentationModel.from_pretrained(parsed.run)
    names = list(ablations_of(model, parsed.only))
    (dataset,) = checked_splits([model], data, parsed.split)

    console, progress = Console(), Console(stderr=True)
    conditions = f"{data.name} {parsed.split}, {len(dataset)} images"
    title = f"{model.info.name} on {model.info.backbone}"
    console.print(f"{title}, {conditions}, scores in percent", highlight=False, soft_wrap=True)
    found = []
    for ablated in ablate(model, dataset, names, device=parsed.device, workers=parsed.workers, console=progress):
        found.append(ablated)
        if progress.is_terminal:
            progress.print(f"{escape(ablated.name)}: mIoU {ablated.scores.miou:.1f}", highlight=False)
    results = ModelComparison(tuple(found), parsed.bootstrap)
    for table in results.tables():
        console.print(table.rich())
    if parsed.json:
        write_json(parsed.json, {"split": parsed.split, "images": len(dataset), **results.as_json()})
    if parsed.html:
        write_page(parsed.html, comparison_page(f"Ablation of {title}", conditions, results, about=ABOUT))
