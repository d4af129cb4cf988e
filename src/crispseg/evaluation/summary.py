"""All scores of one prediction of a split, or a comparison of several with the first, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from rich.table import Table

from crispseg.evaluation.bootstrap import LEVEL, Estimate, ImageScores, ScoreTable, Values, number, percent, score_gains
from crispseg.evaluation.boundary import BoundaryF, BoundaryIoU
from crispseg.evaluation.calibration import Reliability
from crispseg.evaluation.object_scores import PERCENT, ObjectQuality, PanopticQuality
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.thin import WIDTHS, ThinQuality
from crispseg.labels import LabelSet
from crispseg.visualization import pages

DISTANCE = 3  # distance in pixels within which boundaries match when models are compared
_NAMED_AT_ONCE = 4  # largest number of models with names as columns; more get the numbers in the first table

MEASURES: dict[str, tuple[str, ...]] = {
    "miou": ("mIoU",),
    "mean_accuracy": ("mean accuracy",),
    "frequency_weighted_iou": ("frequency-weighted IoU",),
    "pixel_accuracy": ("pixel accuracy",),
    "iou": ("", "class"),
    "accuracy": ("", "class"),
    "boundary_f": ("boundary F, {} px", "distance"),
    "boundary_f_mean": ("boundary F, mean",),
    "boundary_f_of_classes": ("", "distance", "class"),
    "boundary_iou": ("boundary IoU",),
    "boundary_iou_of_classes": ("", "class"),
    "object_f1": ("object F1, IoU 0.5",),
    "object_precision": ("",),
    "object_recall": ("",),
    "object_ap": ("object AP, IoU 0.5 to 0.95",),
    "object_ap_of_thresholds": ("", "threshold"),
    "pq": ("PQ",),
    "sq": ("SQ",),
    "rq": ("RQ",),
    "pq_of_classes": ("", "class"),
    "iou_of_widths": ("IoU, {} px wide", "width"),
    "recall_of_widths": ("recall, {} px wide", "width"),
    "iou_of_widths_and_classes": ("", "width", "class"),
    "recall_of_widths_and_classes": ("", "width", "class"),
    "cl_dice": ("",),
    "cl_dice_of_classes": ("clDice of {}", "line"),
}
"""Measures by their names in JSON: name in the summary, empty if it omits them, and names of the axes."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a split: scores of the confusion matrix, and other requested scores.

    `resamples` is the number of resamples for intervals, 0 for none. Tables of several models show `name`,
    `explanation` and `columns`, further percentages by name.
    """

    labels: LabelSet
    scores: Scores
    boundary: BoundaryF | None = None
    boundary_iou: BoundaryIoU | None = None
    objects: ObjectQuality | None = None
    panoptic: PanopticQuality | None = None
    thin: ThinQuality | None = None
    curve: BoundaryF | None = None  # at `TOLERANCES`, which tables and JSON omit
    reliability: Reliability | None = None
    resamples: int = 0
    name: str = ""
    explanation: str = ""
    columns: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> list[ImageScores]:
        """All computed scores."""
        every = self.scores, self.boundary, self.boundary_iou, self.objects, self.panoptic, self.thin
        return [part for part in every if part is not None]

    @property
    def miou(self) -> float:
        """mIoU in percent."""
        return float(self.scores.miou)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Scores in percent with intervals by name in JSON: `()`, or per class, distance, threshold or width."""
        estimates: dict[str, Estimate] = {}
        for part in self.parts:
            estimates |= part.estimates(self.resamples)
        return estimates

    @property
    def measures(self) -> dict[str, Values]:
        """Values of `estimates`."""
        return {name: estimate.value for name, estimate in self.estimates.items()}

    @cached_property
    def axes(self) -> dict[str, Sequence[Any]]:
        """Names along each axis of `MEASURES`."""
        return {
            "class": self.labels.names,
            "distance": self.boundary.distances if self.boundary else (),
            "threshold": [percentage / 100 for percentage in PERCENT],
            "width": WIDTHS,
            "line": self.thin.names if self.thin else (),
        }

    @property
    def summary(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Return the scores over all classes: names in tables, and keys and indices in `estimates`."""
        rows = []
        for measure, (name, *axes) in MEASURES.items():
            repeated = measure == "boundary_f_mean" and len(self.axes["distance"]) == 1
            if name and measure in self.estimates and not repeated:
                for index in np.ndindex(np.shape(self.estimates[measure].value)):
                    keys = (self.axes[axis][place] for axis, place in zip(axes, index, strict=True))
                    rows.append((name.format(*keys), measure, index))
        return rows

    def means(self) -> list[tuple[str, Estimate]]:
        """Return the scores over all classes, by name."""
        return [(name, self.estimates[measure].at(*index)) for name, measure, index in self.summary]

    def class_table(self) -> ScoreTable:
        """Build the table of each class's IoU, accuracy, share of the pixels and boundary scores in percent."""
        truth, predicted = self.scores.truth, self.scores.predicted
        columns = {"accuracy": self.scores.accuracy}
        columns |= {"% of truth": 100 * truth / max(truth.sum(), 1)}
        columns |= {"% of prediction": 100 * predicted / max(predicted.sum(), 1)}
        if self.boundary:
            f = self.estimates["boundary_f_of_classes"].value
            columns |= {f"F {distance} px": row for distance, row in zip(self.boundary.distances, f, strict=True)}
        if self.boundary_iou:
            columns["boundary IoU"] = self.estimates["boundary_iou_of_classes"].value
        iou, names = self.estimates["iou"], self.labels.names
        rows = []
        for index, name in enumerate(names):
            rows.append([name, iou.at(index), *(percent(column[index]) for column in columns.values())])
        return ScoreTable(["class", "IoU", *columns], rows, self.labels.palette, "Classes")

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the means, and the IoU of each class."""
        classes = []
        for index, (name, color) in enumerate(self.labels.legend):
            iou = self.estimates["iou"].at(index)
            classes.append((name, color, iou.value, iou.alone(), iou.interval))
        return pages.notebook(
            values=[(name, mean.alone(), mean.range()) for name, mean in self.means()],
            note=f"In percent; any ranges are {LEVEL:.0f} % bootstrap intervals over images",
            classes=classes,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the scores as plain numbers (listed in docs/quality.md); undefined scores are `null`."""
        summary = self.named(self.estimates)
        summary["confusion"] = self.scores.confusion.tolist()
        if self.reliability:
            summary |= {"calibration_error": number(self.reliability.error), "reliability": self.reliability.bins}
        if self.objects:
            summary["objects"] = {"true": int(self.objects.truth.sum()), "predicted": int(self.objects.predicted.sum())}
        return summary

    def of_images(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return mIoU and IoU of each image as plain numbers for JSON; `names` are all images of the split."""
        images = self.scores.images
        ious = [dict(zip(self.labels.names, map(number, iou), strict=True)) for iou in images.iou]
        rows = zip(self.scores.ids.tolist(), images.miou, ious, strict=True)
        return [{"name": names[index], "miou": number(miou), "iou": iou} for index, miou, iou in rows]

    def named(self, estimates: dict[str, Estimate]) -> dict[str, Any]:
        """Return values and any `intervals`, nested by the names of classes, distances, thresholds and widths."""
        named = {name: self._nested(estimate.value, MEASURES[name][1:]) for name, estimate in estimates.items()}
        resamples = len(estimates["miou"].samples)
        if resamples:
            named["intervals"] = {"level": LEVEL, "resamples": resamples}
            for name, estimate in estimates.items():
                if not name.endswith("_classes"):
                    ends = np.moveaxis(estimate.interval, 0, -1)
                    named["intervals"][name] = self._nested(ends, MEASURES[name][1:])
        return named

    def _nested(self, values: Values, axes: Sequence[str]) -> Any:
        if axes:
            pairs = zip(self.axes[axes[0]], values, strict=True)
            return {str(key): self._nested(inner, axes[1:]) for key, inner in pairs}
        return [number(value) for value in values] if np.ndim(values) else number(values)


def score_table(columns: dict[str, Evaluation]) -> Table:
    """Build a table of IoU per class and of the means in percent, with a column for each evaluation."""
    first = next(iter(columns.values()))
    names, cells = first.labels.names, []
    for evaluation in columns.values():
        ious = [evaluation.estimates["iou"].at(index) for index in range(len(names))]
        cells.append([*ious, *dict(evaluation.means()).values()])
    rows = zip([*names, *dict(first.means())], *cells, strict=True)
    table = ScoreTable(["class", *columns], [*rows]).rich()
    table.rows[len(names) - 1].end_section = True
    return table


@dataclass(frozen=True)
class ModelComparison:
    """Evaluations of the same images, with gains over the first.

    Args:
        results: evaluations without intervals, with boundary F-scores at `DISTANCE` only; the first is the baseline.
        resamples: number of resamples for the intervals of gains; 0 for none.
    """

    results: tuple[Evaluation, ...]
    resamples: int

    @cached_property
    def gains(self) -> list[dict[str, Estimate]]:
        """Gains of all further evaluations over the first, in all measures."""
        gains = []
        for other in self.results[1:]:
            gains.append(dict[str, Estimate]())
            for before, after in zip(self.results[0].parts, other.parts, strict=True):
                gains[-1] |= score_gains(before, after, self.resamples)
        return gains

    def tables(self) -> list[ScoreTable]:
        """Build the tables of means, scores of classes, and scores of thin structures if requested."""
        first, head = self.results[0], [result.name for result in self.results]
        names = head
        if len(names) > _NAMED_AT_ONCE:
            head = [str(number) for number in range(1, len(names) + 1)]
            names = [" ".join(pair) for pair in zip(head, names, strict=True)]
        tables = [self._means(names)]
        for title, key, *index in (("IoU", "iou"), (f"Boundary F {DISTANCE} px", "boundary_f_of_classes", 0)):
            rows = [self._row(name, key, *index, number) for number, name in enumerate(first.labels.names)]
            title = f"{title} of each class, and changes"
            tables.append(ScoreTable(["class", *head], rows, first.labels.palette, title))
        if first.thin:
            measures = first.thin.measures()
            rows = [self._row(name, key, *index) for name, key, index in first.summary if key in measures]
            tables.append(ScoreTable(["", *head], rows, title="Thin structures, and changes"))
        return tables

    def _means(self, names: Sequence[str]) -> ScoreTable:
        first = self.results[0]
        note = "Scores in percent, changes in percentage points."
        if self.resamples and len(first.scores.ids) > 1:
            note += f" In brackets: {LEVEL:.0f} % paired bootstrap intervals over images."
        columns: list[Sequence[Any]] = [names]
        for key, *index in (("miou",), ("boundary_f", 0)):
            columns.append([result.estimates[key].at(*index) for result in self.results])
            columns.append(["", *(gains[key].at(*index) for gains in self.gains)])
        for key in first.columns:
            columns.append([percent(result.columns[key]) for result in self.results])
        head = ["", "mIoU", "change", f"F {DISTANCE} px", "change", *first.columns]
        return ScoreTable(head, [*zip(*columns, strict=True)], note=note)

    def _row(self, name: str, key: str, *index: int) -> list[Any]:
        """Return the baseline's score and the changes of the others, without intervals."""
        changes = [replace(gains[key].at(*index), brief=True) for gains in self.gains]
        return [name, self.results[0].estimates[key].at(*index), *changes]

    def as_json(self) -> dict[str, Any]:
        """Return each model's scores, in the format of an evaluation, and its changes over the first with intervals."""
        models = []
        for result in self.results:
            texts = {"name": result.name, "explanation": result.explanation}
            models.append({**texts, **result.columns, **result.as_json()})
        for model, gains in zip(models[1:], self.gains, strict=True):
            model["change"] = self.results[0].named(gains)
        return {"models": models}
