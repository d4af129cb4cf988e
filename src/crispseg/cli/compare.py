"""`crispseg compare RUN RUN ... [--split S] [--thin [CLASS …]] [--json FILE] [--html FILE]`"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from crispseg.cli.keys import short_names, show_page
from crispseg.cli.scoring import WithScores
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.recorded import warn_of_leaks
from crispseg.evaluation.report import comparison_page, examples
from crispseg.evaluation.summary import DISTANCE, ModelComparison
from crispseg.models import SegmentationModel


@dataclass(kw_only=True)
class Compare(WithScores):
    """Score trained models on the same images and show the gains over the first model, by class and by image.

    Gains have paired bootstrap intervals. The default is the first model's training data; --data selects others.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        others: further models to compare with it.
        thin: also report IoU and recall by the width of structures, and clDice of the named classes.
    """

    name = "compare"
    words = ("run", "others")
    run: str
    others: list[str]
    thin: list[str] | None = None

    def __call__(self) -> None:
        data, split = self.data_to_score(self.run)
        runs = [self.run, *self.others]
        names = short_names(runs)
        models = [SegmentationModel.from_pretrained(run) for run in runs]
        datasets = checked_splits(models, data, split)

        for run in runs:
            warn_of_leaks(run, data, split)
        conditions = f"{data.name} {split}, {len(datasets[0])} images"
        print(f"{conditions}, scores in percent", flush=True)
        evaluations = []
        options: dict[str, Any] = {"thin": self.thin, "device": self.device, "workers": self.workers}
        for name, model, dataset in zip(names, models, datasets, strict=True):
            scored = score_model(model, dataset, boundary=[DISTANCE], **options)
            evaluations.append(replace(scored, name=name, explanation=model.info.title))
        results = ModelComparison(tuple(evaluations), self.bootstrap)
        Console().print(*(table.rich() for table in results.tables()))
        self.results |= {"split": split, "images": len(datasets[0]), **results.as_json()}
        if self.html:
            changed = examples(models, datasets[0], [evaluation.scores for evaluation in evaluations])
            show_page(self.html, comparison_page(f"Comparison of {', '.join(names)}", conditions, results, changed))
