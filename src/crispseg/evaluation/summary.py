"""One evaluation with its intervals, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from crispseg.evaluation.boundary import BoundaryF
from crispseg.evaluation.boundary_iou import BoundaryIoU
from crispseg.evaluation.object_scores import PERCENT, ObjectQuality
from crispseg.evaluation.per_image import LEVEL, ImageScores, Values
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.thin import WIDTHS, ThinQuality
from crispseg.evaluation.wording import interval, number, percent
from crispseg.labels import LabelSet
from crispseg.visualization import pages

MEANS = {
    "miou": "mIoU",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "pixel_accuracy": "pixel accuracy",
}

_AXES = {
    "iou": ("class",),
    "accuracy": ("class",),
    "boundary_f": ("distance",),
    "boundary_f_of_classes": ("distance", "class"),
    "boundary_iou_of_classes": ("class",),
    "object_ap_of_thresholds": ("threshold",),
    "iou_of_widths": ("width",),
    "recall_of_widths": ("width",),
    "iou_of_widths_and_classes": ("width", "class"),
    "recall_of_widths_and_classes": ("width", "class"),
    "cl_dice_of_classes": ("line",),
}
"""What the axes of measures are; of others, they have none."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a split.

    Args:
        labels: names and colours of the classes.
        scores: from the confusion matrix.
        boundary: boundary F-scores, if they were computed.
        boundary_iou: the same for Boundary IoU.
        objects: the same for single objects.
        thin: the same for thin things.
        resamples: for the intervals; 0 for none.
    """

    labels: LabelSet
    scores: Scores
    boundary: BoundaryF | None = None
    boundary_iou: BoundaryIoU | None = None
    objects: ObjectQuality | None = None
    thin: ThinQuality | None = None
    resamples: int = 0

    @property
    def parts(self) -> list[ImageScores]:
        """All scores that there are."""
        every = self.scores, self.boundary, self.boundary_iou, self.objects, self.thin
        return [part for part in every if part is not None]

    @cached_property
    def measures(self) -> dict[str, Values]:
        """Name in JSON → score in percent, `()`, or of classes, distances, thresholds or widths."""
        parts = [part.measures() for part in self.parts]
        return {name: value for part in parts for name, value in part.items() if name != "image_miou"}

    @cached_property
    def bounds(self) -> dict[str, Values]:
        """Bootstrap intervals of the measures `(2, ...)`; none without resamples or for fewer than two images."""
        if not self.resamples or len(self.scores.ids) < 2:
            return {}
        parts = [part.intervals(self.resamples) for part in self.parts]
        return {name: value for part in parts for name, value in part.items() if name in self.measures}

    def bound(self, name: str, *index: int) -> NDArray[np.float64] | None:
        """`(2,)`, the interval of a measure, of one class or distance by its index; None where there is none."""
        return self.bounds[name][(slice(None), *index)] if self.bounds else None

    def means(self) -> list[tuple[str, float, NDArray[np.float64] | None]]:
        """What is told of all classes together: name, score and interval."""
        wanted: list[tuple[str, str, tuple[int, ...]]] = [(name, key, ()) for key, name in MEANS.items()]
        distances = self.boundary.distances if self.boundary else ()
        wanted += [(f"boundary F, {distance} px", "boundary_f", (at,)) for at, distance in enumerate(distances)]
        if len(distances) > 1:
            wanted.append(("boundary F, mean", "boundary_f_mean", ()))
        if self.boundary_iou:
            wanted.append(("boundary IoU", "boundary_iou", ()))
        if self.objects:
            wanted += [("object F1, IoU 0.5", "object_f1", ()), ("object AP, IoU 0.5 to 0.95", "object_ap", ())]
        if self.thin:
            wanted += [(name, key, (at,)) for name, key, at in self.thin.rows()]
        return [
            (name, float(np.asarray(self.measures[key])[index]), self.bound(key, *index)) for name, key, index in wanted
        ]

    def _repr_html_(self) -> str:
        """What a notebook shows: the means, and the IoU of each class."""
        iou = self.scores.iou
        return pages.render(
            "notebook/evaluation.html",
            means=[(name, percent(value), interval(bound)) for name, value, bound in self.means()],
            level=f"{LEVEL:.0f}" if self.bounds else "",
            classes=[
                (name, color, iou[index], percent(iou[index]), self.bound("iou", index))
                for index, (name, color) in enumerate(zip(self.labels.names, self.labels.palette, strict=True))
            ],
        )

    def as_json(self) -> dict[str, Any]:
        """Scores as plain numbers, as docs/metrics.md lists them; `null` for what is undefined."""
        summary = {name: self._plain(name, values) for name, values in self.measures.items()}
        summary["confusion"] = self.scores.confusion.tolist()
        if self.objects:
            summary["objects"] = {"true": int(self.objects.truth.sum()), "predicted": int(self.objects.predicted.sum())}
        if self.bounds:
            shown = {name: values for name, values in self.bounds.items() if not name.endswith("_classes")}
            summary["intervals"] = {"level": LEVEL, "resamples": self.resamples} | {
                name: self._plain(name, np.moveaxis(values, 0, -1)) for name, values in shown.items()
            }
        return summary

    def _plain(self, name: str, values: Values) -> Any:
        """Nested by the names of classes, distances and thresholds; a last axis without names becomes a list."""
        keys = {
            "class": self.labels.names,
            "distance": self.boundary.distances if self.boundary else (),
            "threshold": [each / 100 for each in PERCENT],
            "width": WIDTHS,
            "line": self.thin.names if self.thin else (),
        }

        def nested(values: Values, axes: tuple[str, ...]) -> Any:
            if axes:
                pairs = zip(keys[axes[0]], values, strict=True)
                return {str(key): nested(each, axes[1:]) for key, each in pairs}
            return [number(each) for each in values] if np.ndim(values) else number(values)

        return nested(values, _AXES.get(name, ()))


def score_table(columns: dict[str, Evaluation]) -> Table:
    """A table of IoU per class and of the means in percent, a column for each evaluation of the same measures.

    Intervals, of a single evaluation, make a last column.
    """
    first, *others = columns.values()
    table = Table()
    table.add_column("class")
    for name in columns:
        table.add_column(escape(name), justify="right")
    bounded = bool(first.bounds and not others)
    if bounded:
        table.add_column(f"{LEVEL:.0f} %", justify="right")
    for index, label in enumerate(first.labels.names):
        ious = [percent(each.scores.iou[index]) for each in columns.values()]
        table.add_row(escape(label), *ious, *([interval(first.bound("iou", index))] if bounded else []))
    table.add_section()
    for rows in zip(*(each.means() for each in columns.values()), strict=True):
        name, _, bounds = rows[0]
        values = [percent(value) for _, value, _ in rows]
        shown = [interval(bounds)] if bounded else []
        table.add_row(name, *values, *shown, style="bold" if name == MEANS["miou"] else None)
    return table
