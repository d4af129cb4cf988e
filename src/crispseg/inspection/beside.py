"""Scores of several models, or of one that is changed, beside those of the first: tables, JSON and a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from rich.table import Table

from crispseg.data import SegmentationDataset
from crispseg.evaluation.boundary import BoundaryF, BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.paired import Gain, score_gains
from crispseg.evaluation.per_image import LEVEL
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.thin import ThinQuality, ThinScores
from crispseg.evaluation.wording import change, change_number, number, percent, signed, text_table
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.visualization import pages

DISTANCE = 3
"""Pixels within which boundaries match."""

HEAD = ("mIoU", "change", f"F {DISTANCE} px", "change")

_CLASSES_AT_ONCE = 30
"""Classes up to which the terminal shows a table of them; JSON and page always have it."""

_NAMED_AT_ONCE = 4
"""Results up to which their names are columns of that table; more have numbers, which the first table gives."""


@dataclass(frozen=True)
class Scored:
    """One evaluation of several on the same split.

    Args:
        name: for tables.
        explanation: what it is.
        scores: over the split, with those of each image.
        boundary: at `DISTANCE`.
        thin: of thin things, if they were asked for.
    """

    name: str
    explanation: str
    scores: Scores
    boundary: BoundaryF
    thin: ThinQuality | None = None

    @classmethod
    def of(
        cls,
        name: str,
        explanation: str,
        model: SegmentationModel,
        dataset: SegmentationDataset,
        thin: ThinScores | None = None,
        **options: Any,
    ) -> Scored:
        """The evaluation of a model; `options` are further arguments of `evaluate`."""
        boundary = BoundaryScores(model.info.num_classes, [DISTANCE])
        scores = evaluate(model, dataset, boundary=boundary, thin=thin, **options)
        return cls(name, explanation, scores, boundary.scores(), thin and thin.scores())


@dataclass(frozen=True)
class SideBySide:
    """Evaluations, each with its gains over the first.

    Args:
        results: scores of the same images, those to compare with first.
        labels: names and colours of the classes.
        resamples: for the intervals; 0 for none.

    Raises:
        CrispsegError: from `gains` on, where they are not of the same images.
    """

    results: tuple[Scored, ...]
    labels: LabelSet
    resamples: int

    @cached_property
    def gains(self) -> list[dict[str, Gain]]:
        """Gains over the first of each but the first.

        `miou` `()`, `iou` `(C,)`, `image_miou` `()`; of boundaries `boundary_f` `()`, `boundary_f_of_classes` `(C,)`;
        of thin things, where they were asked for, what `ThinQuality.measures` has.
        """
        first, *others = self.results
        return [
            score_gains(first.scores, other.scores, self.resamples)
            | (score_gains(first.thin, other.thin, self.resamples) if first.thin and other.thin else {})
            | {
                name: gain.at(0)  # the only distance
                for name, gain in score_gains(first.boundary, other.boundary, self.resamples).items()
                if name != "boundary_f_mean"
            }
            for other in others
        ]

    @property
    def note(self) -> str:
        """What brackets are; nothing where there are none."""
        drawn = self.resamples and len(self.results[0].scores.ids) > 1
        return f"In brackets: {LEVEL:.0f} % paired bootstrap intervals over images." if drawn else ""

    def tables(self) -> list[Table]:
        """Means, the IoU and boundary F of classes, and scores of thin things where they were asked for."""
        numbered = len(self.results) > _NAMED_AT_ONCE
        names = [str(at) if numbered else result.name for at, result in enumerate(self.results, 1)]
        rows = [(f"{at:2} {name}" if numbered else name, *row) for at, (name, *row) in enumerate(self._rows(), 1)]
        tables = [text_table(["", *HEAD], rows, caption=self.note or None)]
        for title, values, key in self._class_scores() if len(self.labels) <= _CLASSES_AT_ONCE else ():
            classes = [
                [label, percent(float(values[at])), *(signed(float(gains[key].value[at])) for gains in self.gains)]
                for at, label in enumerate(self.labels.names)
            ]
            tables.append(text_table(["class", *names], classes, title=f"{title}, and changes"))
        if told := self._thin_rows():
            thin = [
                [name, percent(value), *(signed(float(gain.value)) for gain in gains)] for name, value, gains in told
            ]
            tables.append(text_table(["", *names], thin, title="Thin things, and changes"))
        return tables

    def _thin_rows(self) -> list[tuple[str, float, list[Gain]]]:
        """What is told of thin things: its name, the first's value, and the gains."""
        first = self.results[0].thin
        if first is None:
            return []
        measures = first.measures()
        return [
            (name, float(measures[key][at]), [gains[key].at(at) for gains in self.gains])
            for name, key, at in first.rows()
        ]

    def _class_scores(self) -> list[tuple[str, NDArray[Any], str]]:
        """What is told of each class: its name, the first's values `(C,)`, and where `gains` has the changes."""
        first = self.results[0]
        return [
            ("IoU", first.scores.iou, "iou"),
            (f"Boundary F {DISTANCE} px", first.boundary.f[0], "boundary_f_of_classes"),
        ]

    def as_json(self) -> dict[str, Any]:
        """Scores in percent, changes in percentage points with `[low, high]`; `null` where there is none."""
        names = self.labels.names
        rows = []
        for result, gains in zip(self.results, [None, *self.gains], strict=True):
            row: dict[str, Any] = {
                "name": result.name,
                "explanation": result.explanation,
                "miou": number(result.scores.miou),
                "boundary_f": {str(DISTANCE): number(result.boundary.mean[DISTANCE])},
                "iou": dict(zip(names, map(number, result.scores.iou), strict=True)),
                "class_boundary_f": dict(zip(names, map(number, result.boundary.f[0]), strict=True)),
            }
            if gains is not None:
                row["change"] = {name: change_number(gains[name]) for name in ("miou", "image_miou", "boundary_f")} | {
                    name: {label: change_number(gains[key].at(index)) for index, label in enumerate(names)}
                    for name, key in (("iou", "iou"), ("class_boundary_f", "boundary_f_of_classes"))
                }
            if result.thin is not None:
                measures = result.thin.measures()
                row["thin"] = {name: number(measures[key][at]) for name, key, at in result.thin.rows()}
                if gains is not None:
                    row["change"]["thin"] = {
                        name: change_number(gains[key].at(at)) for name, key, at in result.thin.rows()
                    }
            rows.append(row)
        return {"level": LEVEL, "resamples": self.resamples, "models": rows}

    def page(self, title: str, conditions: str, **values: Any) -> str:
        """The page, HTML.

        Args:
            title: text.
            conditions: on what they were scored.
            values: what else the template `side_by_side.html` shows.
        """
        return pages.render(
            "side_by_side.html",
            title=title,
            conditions=conditions,
            head=["", *HEAD],
            names=[result.name for result in self.results],
            rows=self._rows(),
            compared=self,
            class_scores=self._class_scores(),
            thin_rows=self._thin_rows(),
            percent=percent,
            signed=signed,
            **{"about": "", "image_rows": (), "groups": (), **values},
        )

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        """Name, mIoU, its change, boundary F, its change."""
        rows = []
        for result, gains in zip(self.results, [None, *self.gains], strict=True):
            changes = ["", ""] if gains is None else [change(gains[name]) for name in ("miou", "boundary_f")]
            scores = percent(result.scores.miou), percent(result.boundary.mean[DISTANCE])
            rows.append((result.name, scores[0], changes[0], scores[1], changes[1]))
        return rows
