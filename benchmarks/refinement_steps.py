"""What boundary refinement repairs if both its maps are right, by the way from a direction to an offset.

    python benchmarks/refinement_steps.py
    python benchmarks/refinement_steps.py --masks CAMVID/valannot --ignored 11 --count 101

The masks are spoilt: higher classes grow, or shrink, by 1 or 2 pixels over lower ones; ignored pixels first become the
nearest class, so that nothing grows out of them. Then each labelled pixel takes the label that the boundaries and
directions of the true mask send it to, by one unit step in its direction (as the released code), by that step doubled
(SegFix, `refine_path="straight"`), and by two steps (the default) or three, each in the direction of the pixel where
the one before has ended. masks.py says which masks.

Printed are the mean boundary F at 3 px and the share of wrong pixels, in percent, of all masks together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from masks import Labels, add_mask_arguments, asked_masks
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import one_hot

from crispseg.errors import CrispsegError
from crispseg.evaluation import BoundaryScores
from crispseg.labels import IGNORE
from crispseg.models.boundary_targets import boundary_targets
from crispseg.models.refinement import DIRECTIONS, BoundaryRefinement, RefinePath, shift

PIXELS = 3
"""Distance of the boundary F."""
SPOILT = [(how, by) for by in (1, 2) for how in ("grown", "shrunk")]


def offsets(truth: Labels, steps: int, path: RefinePath = "chained") -> Tensor:
    """`(1, 2, H, W)`: from where each pixel of a mask takes its label, if both maps are right.

    A boundary pixel without a direction, and one of no boundary, keeps its own.
    """
    targets = torch.from_numpy(boundary_targets(truth).astype(np.int64))
    known = targets < DIRECTIONS
    boundary = known.float()[None, None] - 0.5  # logits
    direction = one_hot(targets.where(known, 0), DIRECTIONS).permute(2, 0, 1)[None].float()
    return BoundaryRefinement(steps=steps, path=path).offsets(boundary, direction)


WAYS: Mapping[str, Callable[[Labels], Tensor]] = {
    "1 step": lambda truth: offsets(truth, 1),
    "doubled": lambda truth: offsets(truth, 2, "straight"),
    "2 steps": lambda truth: offsets(truth, 2),
    "3 steps": lambda truth: offsets(truth, 3),
}


def spoil(truth: Labels, how: str, by: int) -> Labels:
    """Higher classes grow, or shrink, by so many pixels over lower ones; ignored pixels become the nearest class."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1,) * 2)
    return np.asarray({"grown": cv2.dilate, "shrunk": cv2.erode}[how](filled(truth), disc))


def filled(truth: Labels) -> Labels:
    """Without ignored pixels: they become the nearest class; class 0 if there is none."""
    ignored = (truth == IGNORE).astype(np.uint8)
    if ignored.all():
        return np.zeros_like(truth)
    _, nearest = cv2.distanceTransformWithLabels(ignored, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    classes = np.zeros(int(nearest.max()) + 1, np.uint8)
    classes[nearest[ignored == 0]] = truth[ignored == 0]
    return classes[nearest]


class Scores(NamedTuple):
    """In percent."""

    boundary_f: float
    wrong: float
    """Labelled pixels that have another label than they should."""


def scores(predictions: Sequence[Labels], truths: Sequence[Labels]) -> Scores:
    boundary = BoundaryScores(1 + max(int(truth[truth != IGNORE].max(initial=1)) for truth in truths), (PIXELS,))
    wrong = labelled = 0
    for prediction, truth in zip(predictions, truths, strict=True):
        boundary.update(*(torch.from_numpy(labels.astype(np.int64))[None] for labels in (prediction, truth)))
        counts = truth != IGNORE
        labelled += int(counts.sum())
        wrong += int((counts & (prediction != truth)).sum())
    return Scores(boundary.scores().mean[PIXELS], 100 * wrong / max(labelled, 1))


def measure(truths: Sequence[Labels]) -> dict[str, dict[str, Scores]]:
    """How masks were spoilt → way → scores; the way "before" leaves them as they are."""
    ways = {name: [way(truth) for truth in truths] for name, way in WAYS.items()}
    found = {}
    for how, by in SPOILT:
        spoilt = [spoil(truth, how, by) for truth in truths]
        row = {"before": scores(spoilt, truths)}
        for name, moves in ways.items():
            moved = [
                shift(torch.from_numpy(labels)[None, None], move)[0, 0].numpy()
                for labels, move in zip(spoilt, moves, strict=True)
            ]
            row[name] = scores(moved, truths)
        found[f"{how} {by} px"] = row
    return found


def as_table(found: Mapping[str, Mapping[str, Scores]], title: str, field: str) -> Table:
    """One field of the scores, of all ways to spoil and to repair."""
    table = Table("masks", "before", *WAYS, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for spoilt, row in found.items():
        table.add_row(spoilt, *(f"{getattr(score, field):.2f}" for score in row.values()))
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; a user's mistake is one line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_mask_arguments(made)
    given = made.parse_args(argv)
    console = Console()
    try:
        truths = asked_masks(given)
    except CrispsegError as error:
        made.exit(2, f"{made.prog}: error: {error}\n")
    console.print(f"{len(truths)} masks of {given.width}×{given.height} pixels")
    found = measure(truths)
    console.print(as_table(found, f"boundary F at {PIXELS} px, percent", "boundary_f"))
    console.print(as_table(found, "wrong pixels, percent", "wrong"))


if __name__ == "__main__":
    main()
