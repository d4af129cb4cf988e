"""Scores of several models, or of one that is changed, compared with those of the first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from crispseg.evaluation.bootstrap import LEVEL, Estimate, ScoreTable, score_gains
from crispseg.evaluation.summary import Evaluation

DISTANCE = 3
"""Pixels within which boundaries match."""

_NAMED_AT_ONCE = 4
"""Models up to which their names are columns of tables; more have numbers, which the first table gives."""


@dataclass(frozen=True)
class ModelComparison:
    """Evaluations of the same images, each with its gains over the first.

    Args:
        results: evaluations without intervals, with boundary F-scores at `DISTANCE` alone; that to compare with first.
        resamples: for the intervals of gains; 0 for none.

    Raises:
        CrispsegError: from `gains` on, if they are not of the same images.
    """

    results: tuple[Evaluation, ...]
    resamples: int

    @cached_property
    def gains(self) -> list[dict[str, Estimate]]:
        """Gains over the first of each but the first, in all measures of the evaluations' parts."""
        found = []
        for other in self.results[1:]:
            pairs = zip(self.results[0].parts, other.parts, strict=True)
            found.append({name: gain for pair in pairs for name, gain in score_gains(*pair, self.resamples).items()})
        return found

    def tables(self) -> list[ScoreTable]:
        """Means, scores of classes, and scores of thin things if they were asked for."""
        first, numbered = self.results[0], len(self.results) > _NAMED_AT_ONCE
        note = "Scores in percent, changes in percentage points."
        if self.resamples and len(first.scores.ids) > 1:
            note += f" In brackets: {LEVEL:.0f} % paired bootstrap intervals over images."
        names = [f"{at} {one.name}" if numbered else one.name for at, one in enumerate(self.results, 1)]
        head = [str(at) for at in range(1, len(names) + 1)] if numbered else names
        rows = []
        for name, one, gains in zip(names, self.results, [None, *self.gains], strict=True):
            cells: list[Any] = [name]
            for key, index in (("miou", ()), ("boundary_f", (0,))):
                cells += [one.estimates[key].at(*index), gains[key].at(*index) if gains else ""]
            rows.append(cells)
        tables = [ScoreTable(["", "mIoU", "change", f"F {DISTANCE} px", "change"], rows, note=note)]
        classes, colors = first.labels.names, first.labels.palette
        ious = [self._row(name, "iou", at) for at, name in enumerate(classes)]
        fs = [self._row(name, "boundary_f_of_classes", 0, at) for at, name in enumerate(classes)]
        tables.append(ScoreTable(["class", *head], ious, colors, "IoU of each class, and changes"))
        tables.append(ScoreTable(["class", *head], fs, colors, f"Boundary F {DISTANCE} px of each class, and changes"))
        if first.thin:
            thin = first.thin.measures()
            rows = [self._row(name, key, *index) for name, key, index in first.summary if key in thin]
            tables.append(ScoreTable(["", *head], rows, title="Thin things, and changes"))
        return tables

    def _row(self, name: str, key: str, *index: int) -> list[Any]:
        """The first's score and the changes of the others, without their intervals."""
        gains = [replace(each[key].at(*index), brief=True) for each in self.gains]
        return [name, self.results[0].estimates[key].at(*index), *gains]

    def as_json(self) -> dict[str, Any]:
        """The scores of each model, as those of an evaluation, and its changes over the first, with their intervals."""
        models = [{"name": one.name, "explanation": one.explanation, **one.as_json()} for one in self.results]
        for model, gains in zip(models[1:], self.gains, strict=True):
            model["change"] = self.results[0].named(gains, self.resamples)
        return {"models": models}
