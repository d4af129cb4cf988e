"""The confusion matrix as a picture."""

from __future__ import annotations

import numpy as np
import pytest

from crispseg.evaluation.report import draw_confusion


@pytest.mark.parametrize("classes", [2, 13, 35])
def test_all_cells_are_there(classes: int) -> None:
    """Each class in a cell of its own, the darkest where all of its pixels are right."""
    picture = draw_confusion(np.eye(classes, dtype=np.int64), [f"class {index} {'w' * 60}" for index in range(classes)])
    darkest = (picture == (8, 48, 107)).all(2)
    rows, columns = np.nonzero(darkest)
    cell = (np.ptp(rows) + 1) / classes
    assert cell == pytest.approx((np.ptp(columns) + 1) / classes, abs=0.5) and cell >= 12
    for index in {0, classes // 2, classes - 1}:
        y, x = (round(edge.min() + (index + 0.15) * cell) for edge in (rows, columns))
        assert darkest[y, x]


def test_colours_say_what_share_of_a_row() -> None:
    confusion, names = np.array([[50, 50, 0], [0, 0, 7], [0, 0, 0]]), ["sky", "road", "car"]
    np.testing.assert_array_equal(draw_confusion(confusion, names), draw_confusion(confusion * 1000, names))
