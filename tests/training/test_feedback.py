"""What a run says while it goes on, and at its end."""

from __future__ import annotations

import numpy as np

from crispseg.training.feedback import class_scores

NAMES = ("background", "nucleus", "border")


def test_a_line_has_the_lowest_classes() -> None:
    assert class_scores(np.array([62.1, np.nan, 0.0]), NAMES, 4) == "background 62.1  border 0.0"
    many = np.arange(30.0)[::-1]
    assert class_scores(many, [f"c{index}" for index in range(30)], 4) == "lowest c29 0.0, c28 1.0, c27 2.0"
