"""Scores of several models, or of one that is changed, beside those of the first: tables, JSON and parts of a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from crispseg import pages
from crispseg.evaluation.boundary import BoundaryF
from crispseg.evaluation.paired import Gain, boundary_gains, score_gains
from crispseg.evaluation.per_image import LEVEL
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.wording import change, change_number, number, percent, signed
from crispseg.labels import LabelSet

DISTANCE = 3
"""Pixels within which boundaries match."""

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
    """

    name: str
    explanation: str
    scores: Scores
    boundary: BoundaryF


@dataclass(frozen=True)
class SideBySide:
    """Evaluations, each with its gains over the first.

    Args:
        results: of the same images.
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
        """Of each but the first over the first.

        `miou` `()`, `iou` `(C,)`, `image_miou` `()`; `boundary_f` `()`, `class_f` `(C,)`, of boundaries.
        """
        first, *others = self.results
        gains = []
        for other in others:
            boundary = boundary_gains(first.boundary, other.boundary, self.resamples)
            scores = score_gains(first.scores, other.scores, self.resamples)
            gains.append({**scores, "boundary_f": boundary["mean"].at(0), "class_f": boundary["f"].at(0)})
        return gains

    def tables(self) -> list[Table]:
        """Means, and the IoU and boundary F of classes."""
        means = Table(caption=self._note() or None, caption_justify="left")
        means.add_column("", overflow="fold")
        for name in _HEAD:
            means.add_column(name, justify="right")
        numbered = len(self.results) > _NAMED_AT_ONCE
        for index, (name, *row) in enumerate(self._rows(), 1):
            means.add_row(*map(escape, (f"{index:2} {name}" if numbered else name, *row)))
        if len(self.labels) > _CLASSES_AT_ONCE:
            return [means]
        return [means, *(self._class_table(*score) for score in self._class_scores())]

    def _class_table(self, name: str, values: NDArray[np.float64], key: str) -> Table:
        table = Table(title=f"{name}, and changes", title_justify="left")
        table.add_column("class", overflow="fold")
        numbered = len(self.results) > _NAMED_AT_ONCE
        for index, result in enumerate(self.results, 1):
            table.add_column(str(index) if numbered else escape(result.name), justify="right", overflow="fold")
        for index, label in enumerate(self.labels.names):
            changes = [signed(float(gains[key].value[index])) for gains in self.gains]
            table.add_row(escape(label), percent(float(values[index])), *changes)
        return table

    def _class_scores(self) -> list[tuple[str, NDArray[np.float64], str]]:
        """What is told of each class: its name, the first's values `(C,)`, and where `gains` has the changes."""
        first = self.results[0]
        return [("IoU", first.scores.iou, "iou"), (f"Boundary F {DISTANCE} px", first.boundary.f[0], "class_f")]

    def as_json(self) -> dict[str, Any]:
        """Scores in percent, changes in percentage points with `[low, high]`; `null` where there is none."""
        rows = []
        for result, gains in zip(self.results, [None, *self.gains], strict=True):
            row: dict[str, Any] = {
                "name": result.name,
                "explanation": result.explanation,
                "miou": number(result.scores.miou),
                "boundary_f": {str(DISTANCE): number(result.boundary.mean[DISTANCE])},
                "iou": dict(zip(self.labels.names, map(number, result.scores.iou), strict=True)),
                "class_boundary_f": dict(zip(self.labels.names, map(number, result.boundary.f[0]), strict=True)),
            }
            if gains is not None:
                wanted = ("miou", "image_miou", "boundary_f")
                changes: dict[str, Any] = {name: change_number(gains[name]) for name in wanted}
                for name, key in (("iou", "iou"), ("class_boundary_f", "class_f")):
                    changes[name] = {
                        label: change_number(gains[key].at(index)) for index, label in enumerate(self.labels.names)
                    }
                row["change"] = changes
            rows.append(row)
        return {"level": LEVEL, "resamples": self.resamples, "models": rows}

    def blocks(self) -> list[str]:
        """All tables as HTML."""
        means = [
            [*map(pages.text, row), pages.soft(result.explanation)]
            for row, result in zip(self._rows(), self.results, strict=True)
        ]
        made = [
            pages.table(["", *_HEAD, ""], means),
            pages.paragraph(f"Scores in percent, changes in percentage points. {self._note()}", soft=True),
        ]
        names = [result.name for result in self.results]
        for score, values, key in self._class_scores():
            classes = [
                [
                    pages.named(label, color),
                    pages.bar(float(values[index])),
                    percent(float(values[index])),
                    *(_clear(gains[key].at(index)) for gains in self.gains),
                ]
                for index, (label, color) in enumerate(zip(self.labels.names, self.labels.palette, strict=True))
            ]
            made += [
                pages.heading(f"{score} of each class, and changes"),
                *([pages.paragraph("Bold where the interval leaves out 0.", soft=True)] if self._note() else []),
                pages.table(["class", "", *names], classes),
            ]
        return made

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        """Name, mIoU, its change, boundary F, its change."""
        rows = []
        for result, gains in zip(self.results, [None, *self.gains], strict=True):
            changes = ["", ""] if gains is None else [change(gains[name]) for name in ("miou", "boundary_f")]
            scores = percent(result.scores.miou), percent(result.boundary.mean[DISTANCE])
            rows.append((result.name, scores[0], changes[0], scores[1], changes[1]))
        return rows

    def _note(self) -> str:
        drawn = self.resamples and len(self.results[0].boundary.ids) > 1
        return f"In brackets: {LEVEL:.0f} % paired bootstrap intervals over images." if drawn else ""


_HEAD = ("mIoU", "change", f"F {DISTANCE} px", "change")


def _clear(gain: Gain) -> str:
    shown = pages.text(signed(float(gain.value)))
    return f"<b>{shown}</b>" if bool(gain.is_clear) else shown
