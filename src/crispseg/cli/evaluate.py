"""`crispseg evaluate RUN [FOLDER] [--split S] [--protocol NAME] [--boundary] [--objects CLASS] [--html FILE]`"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console

import crispseg
from crispseg.cli.keys import WithProtocol, show_page
from crispseg.cli.scoring import WithScores
from crispseg.config.settings import Tree, plural
from crispseg.evaluation.evaluate import score_run
from crispseg.evaluation.report import draw_confusion, examples, report_page, thumbnails
from crispseg.evaluation.summary import score_table
from crispseg.inference.protocols import WHOLE
from crispseg.io.images import check_picture, write_image


@dataclass(kw_only=True)
class Evaluate(WithProtocol, WithScores):
    """Score a trained model on its own data set, on a folder of data, or on other data (--data).

    Args:
        run: a run's folder, a saved model's folder, a hub id, the name of a bundled model, or an exported file.
        folder: a folder of data in a known layout.
        confusion: also draw the confusion matrix to this file.
    """

    name = "evaluate"
    words = ("run", "folder")
    function = staticmethod(crispseg.evaluate)
    run: str
    folder: str | None = None
    confusion: Path | None = None

    def __call__(self) -> None:
        data, split = self.data_to_score(self.run, self.folder)
        protocol = self.options["protocol"]
        if self.confusion:
            check_picture(self.confusion)
        further: Tree = {"resamples": self.bootstrap, "device": self.device, "workers": self.workers}
        further["curve"] = bool(self.html)
        model, dataset, evaluation = score_run(self.run, data, split, **further, **self.options)
        network = model.info.title
        conditions = f"{data.name} {split}, {plural(len(dataset), 'image')}"
        seen = "" if protocol == WHOLE else f" ({protocol})"
        print(f"{network}, {conditions}, in percent{seen}")
        if objects := evaluation.objects:
            name = self.options["objects"]
            print(f"{objects.truth.sum()} objects of class {name}; {objects.predicted.sum()} predicted")
        Console().print(score_table({"IoU": evaluation}))
        if evaluation.reliability:
            print(f"calibration error {evaluation.reliability.error:.1f}")
        if self.confusion:
            write_image(self.confusion, draw_confusion(evaluation.scores.confusion, dataset.labels.names))
        if self.json:
            summary = {"split": split, "images": len(dataset), "protocol": str(protocol)}
            of_images = evaluation.of_images([dataset.name_of(index) for index in range(len(dataset))])
            self.results |= {**summary, **evaluation.as_json(), "of_images": of_images}
        if self.html:
            made = f"protocol {protocol}, {date.today()}, crispseg {crispseg.__version__}"
            chosen = examples([model], dataset, [evaluation.scores], protocol)
            images = thumbnails(model, dataset, evaluation.scores.ids)
            page = report_page(network, f"{self.run}: {conditions}, {made}", evaluation, chosen, images)
            show_page(self.html, page)
