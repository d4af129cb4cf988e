"""`crispseg compare RUN RUN ... [--split S] [--thin [CLASS …]] [--json FILE] [--html FILE]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from crispseg.cli.parsing import RUN, Parser
from crispseg.cli.scoring import (
    add_scoring_keys,
    add_thin_key,
    checked_splits,
    parse_scoring,
    write_json,
)
from crispseg.errors import CrispsegError
from crispseg.evaluation.comparison import DISTANCE, ModelComparison
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.report import comparison_page, most_changed
from crispseg.models import SegmentationModel
from crispseg.visualization.pages import write_page


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg compare",
        description="Score trained models on the same images: gains of each over the first, by class and by image, "
        "with paired bootstrap intervals. The data are those that the first was trained on, or others given by --data.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("others", nargs="+", metavar="RUN", help="the same, to compare with it")
    add_thin_key(parser)
    add_scoring_keys(parser)
    parsed, data = parse_scoring(argv, parser, more_runs=True)
    runs = [parsed.run, *parsed.others]
    names = short_names(runs)
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise CrispsegError(f"{twice} is given twice; give different models to compare")
    models = [SegmentationModel.from_pretrained(run) for run in runs]
    for run, model in zip(runs, models, strict=True):
        if model.info.num_classes != models[0].info.num_classes:
            raise CrispsegError(
                f"{runs[0]} has {models[0].info.num_classes} classes, {run} {model.info.num_classes}; models need the "
                "same to be compared"
            )
    datasets = checked_splits(models, data, parsed.split)

    console, progress = Console(), Console(stderr=True)
    conditions = f"{data.name} {parsed.split}, {len(datasets[0])} images"
    console.print(f"{conditions}, scores in percent", highlight=False, soft_wrap=True)
    options = {"device": parsed.device, "workers": parsed.workers, "console": progress}
    results = ModelComparison(
        tuple(
            score_model(
                model,
                dataset,
                boundary=[DISTANCE],
                thin=parsed.thin,
                name=name,
                explanation=f"{model.info.name} on {model.info.backbone}",
                **options,
            )
            for name, model, dataset in zip(names, models, datasets, strict=True)
        ),
        parsed.bootstrap,
    )
    for table in results.tables():
        console.print(table.rich())
    if parsed.json:
        summary = {"split": parsed.split, "images": len(datasets[0]), **results.as_json()}
        write_json(parsed.json, {**summary, "image_scores": results.images_as_json(datasets[0].name_of)})
    if parsed.html:
        title = " and ".join(names) if len(names) == 2 else ", ".join(names)
        changed = most_changed(models, datasets[0], [one.scores for one in results.results])
        write_page(parsed.html, comparison_page(f"Comparison of {title}", conditions, results, *changed))


def short_names(runs: Sequence[str]) -> list[str]:
    """The ends of paths, of as many parts as make all different, at most all of them."""
    parts = [Path(run).resolve().parts if Path(run).exists() else Path(run).parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*each[-count:])) for each in parts]
        if len(set(names)) == len(names):
            break
    return names
