"""The confusion matrix as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crispseg.evaluation.report import ABSENT, HIT, MISS, draw_confusion


@pytest.mark.parametrize("classes", [2, 13, 35])
def test_all_cells_are_there(classes: int) -> None:
    """Each class in a cell of its own, large enough for its name, whatever their number."""
    picture = draw_confusion(np.eye(classes, dtype=np.int64), [f"class {index} {'w' * 60}" for index in range(classes)])
    rows, columns = np.nonzero((picture == HIT).all(2))
    cell = (np.ptp(rows) + 1) / classes
    assert cell == pytest.approx((np.ptp(columns) + 1) / classes, abs=0.5) and cell >= 14
    for index in {0, classes // 2, classes - 1}:
        y, x = (round(edge.min() + (index + 0.15) * cell) for edge in (rows, columns))
        assert tuple(picture[y, x]) == HIT
    assert rows.min() < 400 and columns.min() < 400  # long names are cut


def test_colours_say_what_share_of_a_row() -> None:
    confusion, names = np.array([[50, 50, 0], [0, 0, 7], [0, 0, 0]]), ["sky", "road", "car"]
    picture = draw_confusion(confusion, names)
    np.testing.assert_array_equal(picture, draw_confusion(confusion * 1000, names))  # shares, not pixels
    found = {tuple(color) for color in picture.reshape(-1, 3)}
    half = tuple(np.round(255 + (np.array(HIT) - 255) * np.sqrt(0.5)).astype(int))
    assert {MISS, ABSENT, half} <= found


def test_names_that_do_not_fit(refuses: Any) -> None:
    with refuses("(2, 2)", "3 names"):
        draw_confusion(np.eye(2, dtype=np.int64), ["a", "b", "c"])
