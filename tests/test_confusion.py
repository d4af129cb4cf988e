from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crispseg.evaluation.confusion import HIT, MISS, _colors, draw_confusion


@pytest.mark.parametrize("classes", [2, 12, 13, 31, 150, 255])
def test_all_cells_are_there(classes: int) -> None:
    """Each class in a cell of its own, large enough for its name, whatever their number."""
    picture = draw_confusion(np.eye(classes, dtype=np.int64), [f"class {index}" for index in range(classes)])
    assert picture.dtype == np.uint8 and picture.ndim == 3
    height, width, _ = picture.shape
    blue = (picture == HIT).all(2)
    blue[-60:] = False  # the legend
    rows, columns = np.nonzero(blue)
    cell = (np.ptp(rows) + 2) / classes  # with the last line
    assert cell == (np.ptp(columns) + 2) / classes and cell >= 14
    assert rows.max() < height - 60 and columns.max() < width - 5
    for index in {0, classes // 2, classes - 1}:
        y, x = (round(edge.min() - 1 + (index + 0.15) * cell) for edge in (rows, columns))
        assert tuple(picture[y, x]) == HIT


def test_colours_say_what_share_of_a_row() -> None:
    confusion = np.array([[50, 50, 0], [0, 0, 7], [0, 0, 0]])
    shares = np.array([[50, 50, 0], [0, 0, 100], [np.nan] * 3])
    colors = _colors(shares)
    assert tuple(colors[1, 2]) == MISS and tuple(colors[1, 1]) == (255, 255, 255)
    assert len({tuple(color) for color in colors[2]}) == 1  # a class that the truth has not
    half = np.array([255] * 3) + (np.array(HIT) - 255) * np.sqrt(0.5)
    np.testing.assert_allclose(colors[0, 0], half, atol=1)
    names = ["sky", "road", "car"]
    more = draw_confusion(confusion * 1000, names)
    np.testing.assert_array_equal(draw_confusion(confusion, names), more)  # shares, not pixels
    assert (draw_confusion(confusion, names) != draw_confusion(confusion.T, names)).any()


def test_long_names_do_not_widen_the_picture_without_end() -> None:
    confusion = np.eye(20, dtype=np.int64)
    plain = draw_confusion(confusion, [f"{index:02}" + 22 * "w" for index in range(20)])
    long = draw_confusion(confusion, [f"{index:02}" + 80 * "w" for index in range(20)])
    assert long.shape[1] <= plain.shape[1] + 10


def test_shapes_are_checked(refuses: Any) -> None:
    with refuses("(2, 2)", "3 names"):
        draw_confusion(np.eye(2, dtype=np.int64), ["a", "b", "c"])
