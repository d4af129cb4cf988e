"""`crispseg ablate RUN [FOLDER] [--only NAME ...] [--split S] [--json FILE] [--html FILE]`"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from crispseg.cli.keys import show_page
from crispseg.cli.scoring import WithScores
from crispseg.config.settings import plural
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.report import comparison_page
from crispseg.evaluation.summary import ModelComparison
from crispseg.inspection.ablation import ablate, ablations_of
from crispseg.models import SegmentationModel


@dataclass(kw_only=True)
class Ablate(WithScores):
    """Score a trained model with one of its quantities set to zero, made uniform or left out.

    The quantities are its learned flow, pooled maps, sampled points, descriptors, attention or refinement. No model is
    retrained. The default data are those of the run; give a folder or --data for others.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        folder: a folder of data in a known layout.
        only: names of ablations; by default all that apply to the model.
    """

    name = "ablate"
    words = ("run", "folder")
    run: str
    folder: str | None = None
    only: list[str] | None = None

    def __call__(self) -> None:
        data, split = self.data_to_score(self.run, self.folder)
        model = SegmentationModel.from_pretrained(self.run)
        names = list(ablations_of(model, self.only))
        (dataset,) = checked_splits([model], data, split)

        conditions = f"{data.name} {split}, {plural(len(dataset), 'image')}, without retraining"
        title = model.info.title
        print(f"{title}, {conditions}, scores in percent", flush=True)
        scored = ablate(model, dataset, names, device=self.device, workers=self.workers)
        results = ModelComparison(tuple(scored), self.bootstrap)
        Console().print(*(table.rich() for table in results.tables()))
        self.results |= {"split": split, "images": len(dataset), **results.as_json()}
        if self.html:
            show_page(self.html, comparison_page(f"Ablation of {title}", conditions, results))
