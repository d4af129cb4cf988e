"""Result of a training run: the model, its scores and their history."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from crispseg.data import DataSource
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import RESAMPLES, percent
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.recorded import recorded_data
from crispseg.evaluation.summary import Evaluation
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.image_files import Source
from crispseg.io.files import user_path
from crispseg.io.images import read_image
from crispseg.labels import Color, LabelSet
from crispseg.models import SegmentationModel
from crispseg.visualization import pages

METRICS = "metrics.csv"
PICTURE = "val.png"


@dataclass(frozen=True)
class Run:
    """Finished run. A notebook displays its curve, the IoU of each class and val images."""

    folder: Path
    model: SegmentationModel = field(repr=False)
    """Model with the best mIoU on the val split, in eval mode; also saved in `folder / "model"`."""
    miou: float
    """mIoU of the model on the val split, in percent."""
    iou: dict[str, float | None]
    """IoU of each class on the val split; None for a class that occurs in neither ground truth nor prediction."""
    data: DataSource = field(repr=False)
    """Training data."""

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Run:
        """Open the folder of a finished run; the data need not exist any more.

        Raises:
            CrispsegError: the folder is not a finished run, or is damaged.
        """
        folder = user_path(folder)
        if not (folder / METRICS).is_file():
            raise CrispsegError(f"{folder} has no {METRICS}; give the folder of a finished run")
        model = SegmentationModel.from_pretrained(folder)
        run = cls(folder, model, 0.0, {}, build_data(recorded_data(str(folder))))
        best = run.best  # reads the file
        iou = {name: None if np.isnan(best[f"iou/{name}"]) else best[f"iou/{name}"] for name in model.info.class_names}
        return replace(run, miou=float(np.nan_to_num(best["miou"])), iou=iou)

    def __fspath__(self) -> str:
        """Return the folder, so that functions of a run's folder accept the run."""
        return str(self.folder)

    @cached_property
    def segmenter(self) -> Segmenter:
        """Segmenter of the model."""
        return Segmenter(self.model)

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...]) -> list[Segmentation]: ...
    @overload
    def predict(self, images: Source) -> Segmentation: ...
    def predict(self, images: Any) -> Any:
        """Return the `Segmentation` of an image, or a list of them for several images; see `Segmenter`."""
        return self.segmenter(images)

    def evaluate(self, split: str = "val", data: DataSource | None = None) -> Evaluation:
        """Return the model's scores with confidence intervals, on a split of the run's data or of other data."""
        (dataset,) = checked_splits([self.model], data or self.data, split)
        return score_model(self.model, dataset, workers=0, resamples=RESAMPLES)

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of `metrics.csv`, for `pandas.DataFrame(run.history)`; undefined scores are NaN."""
        with (self.folder / METRICS).open(newline="", encoding="utf-8") as file:
            table = [*csv.DictReader(file)]
        rows = []
        for row in table:
            values = {key: float(value or "nan") for key, value in row.items()}
            rows.append(values | {"epoch": int(row["epoch"]), "step": int(row["step"])})
        return rows

    @property
    def best(self) -> dict[str, float]:
        """Row of `history` whose weights are `model`: the last one with the best mIoU."""
        return max(reversed(self.history), key=lambda row: np.nan_to_num(row["miou"]))

    def as_json(self) -> dict[str, Any]:
        """Return the folder and the scores as plain values."""
        return {"run": str(self.folder), "miou": self.miou, "iou": self.iou, "metrics": self.model.info.metrics}

    def _repr_html_(self) -> str:
        pictures = [curve(self.history), picture(self.folder / PICTURE, "val", 1024)]
        return pages.notebook(
            title=f"{self.model.info.title}: mIoU {percent(self.miou)} on val",
            note=str(self.folder),
            pictures=[shown for shown in pictures if shown],
            classes=class_rows(self.model.info.label_set(), self.iou),
        )


def class_rows(labels: LabelSet, iou: Mapping[str, float | None]) -> list[tuple[str, Color, float, str, None]]:
    """Return name, colour and IoU of each class for a page."""
    rows = []
    for name, color in labels.legend:
        value = np.array(iou[name], float).item()  # NaN for None
        rows.append((name, color, value, percent(value), None))
    return rows


def curve(history: list[dict[str, float]]) -> pages.Picture:
    """Draw the mIoU of all evaluations."""
    points = np.array([(row["step"], row["miou"]) for row in history]).T
    marks, text = ("plot", *points, ".-"), "mIoU of each evaluation"
    return pages.chart(text, marks, size=(4.8, 2.4), xlabel="step", ylabel="mIoU on val, %")


def picture(path: Path, text: str, longest: int = 1600) -> pages.Picture | None:
    """Embed a picture of the run, if it exists."""
    return pages.embedded(read_image(path), text, photo=True, longest=longest) if path.is_file() else None
