"""`crispseg evaluate RUN [FOLDER] [--split S] [--protocol NAME] [--boundary] [--objects CLASS] [--html FILE]`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import crispseg
from crispseg.cli.command import say
from crispseg.cli.keys import WithObjects, WithProtocol, show_page, write_json
from crispseg.cli.scoring import WithScores
from crispseg.evaluation.boundary import DISTANCES, Empty
from crispseg.evaluation.evaluate import checked_splits, score_model, warn_of_leaks
from crispseg.evaluation.report import draw_confusion, examples, report_page
from crispseg.evaluation.summary import score_table
from crispseg.inference.objects import ObjectRule
from crispseg.inference.protocols import WHOLE
from crispseg.inference.runtime import Backend, open_model
from crispseg.io.images import check_picture, write_image


@dataclass(kw_only=True)
class Evaluate(WithScores, WithProtocol, WithObjects):
    """Score a trained model on the data it was trained on, on those of a folder, or on others given by --data.

    Args:
        run: a run's folder, a saved model's folder, a hub id, the name of a bundled model, or an exported file.
        folder: a folder of data in a known layout.
        backend: what runs an exported file; by default ONNX Runtime for .onnx, OpenVINO for .xml.
        boundary: also Boundary IoU and the boundary F-score within distances in pixels, by default 3, 5, 9 and 12.
        boundary_empty: 1 if an image without a boundary of a class in truth and prediction counts as F = 1 for the
            class, as in the code of DAVIS and Gated-SCNN; by default it is skipped.
        thin: also IoU and recall by the width of things, and clDice of the classes that are named.
        confusion: also draw the confusion matrix to this file.
    """

    name = "evaluate"
    words = ("run", "folder")
    first = ("split", "boundary", "html", "json", "device", "data.images", "data.masks")
    run: str
    folder: str | None = None
    backend: Backend = "auto"
    boundary: list[int] | None = None
    boundary_empty: Empty = "skip"
    thin: list[str] | None = None
    confusion: Path | None = None

    def __call__(self) -> None:
        data, split = self.data_to_score(self.run, self.folder)
        protocol = self.chosen_protocol()
        if self.confusion:
            check_picture(self.confusion)
        model = open_model(self.run, self.backend)
        (dataset,) = checked_splits([model], data, split)
        warn_of_leaks(self.run, data, split)
        evaluation = score_model(
            model,
            dataset,
            boundary=() if self.boundary is None else self.boundary or DISTANCES,
            boundary_empty=self.boundary_empty,
            boundary_iou=self.boundary is not None,
            objects=ObjectRule.named(dataset.labels, self.objects, self.objects_border) if self.objects else None,
            thin=self.thin,
            protocol=protocol,
            resamples=self.bootstrap,
            device=self.device,
            workers=self.workers,
        )
        network = f"{model.info.name} on {model.info.backbone}"
        conditions = f"{data.name} {split}, {len(dataset)} images"
        seen = "" if protocol == WHOLE else f" ({protocol})"
        console = Console()
        say(console, f"{network}, {conditions}, in percent{seen}")
        if found := evaluation.objects:
            say(console, f"{found.truth.sum()} objects of class {self.objects}; {found.predicted.sum()} predicted")
        console.print(score_table({"IoU": evaluation}))
        if self.confusion:
            write_image(self.confusion, draw_confusion(evaluation.scores.confusion, dataset.labels.names))
        if self.json:
            summary = {"split": split, "images": len(dataset), "protocol": str(protocol)}
            write_json(self.json, {**summary, **evaluation.as_json()})
        if self.html:
            conditions = f"{conditions}, protocol {protocol}, crispseg {crispseg.__version__}"
            chosen = examples([model], dataset, [evaluation.scores], protocol)
            show_page(self.html, report_page(network, conditions, evaluation, *chosen))
