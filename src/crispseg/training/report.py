"""The page of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crispseg.config.settings import CONFIG
from crispseg.data.hints import after_training
from crispseg.data.picture import DATA_PICTURE
from crispseg.evaluation.bootstrap import percent
from crispseg.io.files import write_file
from crispseg.training.result import PICTURE, Run, class_rows, curve, picture
from crispseg.visualization import pages

REPORT = "report.html"


def write_report(run: Run, stages: Sequence[str]) -> Path:
    """Write the page of a run to its folder: scores, pictures, settings, next commands and these lines about time."""
    rows, page = run.history, run.folder / REPORT
    content = pages.render(
        "run.html",
        title=f"{run.model.info.title}: mIoU {percent(run.miou)} on val",
        folder=run.folder,
        cards=[
            ("best mIoU on val", percent(run.miou), f"step {run.best['step']}"),
            ("last mIoU on val", percent(rows[-1]["miou"]), f"step {rows[-1]['step']}"),
            ("training", f"{rows[-1]['seconds'] / 60:.1f} min", stages[0]),
        ],
        curve=curve(rows),
        classes=class_rows(run.model.info.label_set(), run.iou),
        brightened=pages.BRIGHTENED,
        val=picture(run.folder / PICTURE, "val images, ground truth, predictions and errors"),
        data=picture(run.folder / DATA_PICTURE, "training images with their masks"),
        advice=stages[1:],
        commands=[*after_training(run.folder, run.data)],
        settings=(run.folder / CONFIG).read_text("utf-8"),
    )
    write_file(page, content)
    return page
