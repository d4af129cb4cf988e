"""The measurement of ways from a direction to an offset in benchmarks/, on a few small masks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispseg.refinement import STEPS
from crispseg.refinement.targets import boundary_targets

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("refinement_steps")


def test_it_prints_each_way(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--height=72", "--width=96", "--count=2"])
    printed = capsys.readouterr().out
    assert "2 masks of 96×72 pixels" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert [row[0] for row in rows] == 2 * ["grown 1 px", "shrunk 1 px", "grown 2 px", "shrunk 2 px"]
    assert all(len(row) == 6 for row in rows)
    found = script.measure(importlib.import_module("masks").scene_masks(2, 72, 96))
    expected = [[f"{score.boundary_f:.2f}" for score in row.values()] for row in found.values()]
    assert [row[1:] for row in rows[:4]] == expected
    assert [row[1:] for row in rows[4:]] == [[f"{score.wrong:.2f}" for score in row.values()] for row in found.values()]
    assert [*found["grown 1 px"]] == ["before", "1 step", "doubled", "2 steps", "3 steps"]


def test_a_users_mistake_is_one_line(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main([f"--masks={tmp_path / 'none'}"])
    assert stopped.value.code == 2 and "none is missing" in capsys.readouterr().err


def test_offsets_follow_the_directions(script: Any) -> None:
    """Step by step, pixel by pixel; ignored pixels and those of no boundary stay."""
    truth = np.zeros((24, 30), np.uint8)
    truth[6:18, 8:14] = 1
    truth[4:9, 20:29] = 2
    truth[20:, :5] = 255
    targets = boundary_targets(truth)

    def walked(y: int, x: int, steps: int) -> tuple[int, int]:
        if steps == 0 or targets[y, x] >= 8:
            return y, x
        dx, dy = STEPS[targets[y, x]]
        return walked(min(max(y + dy, 0), 23), min(max(x + dx, 0), 29), steps - 1)

    for steps, way in ((1, "1 step"), (2, "2 steps"), (3, "3 steps")):
        found = script.WAYS[way](truth)[0].numpy()
        for y in range(24):
            for x in range(30):
                to = np.clip((y + found[1, y, x], x + found[0, y, x]), 0, (23, 29))
                assert tuple(to) == walked(y, x, steps), (way, y, x)
    assert np.array_equal(script.WAYS["doubled"](truth), 2 * script.WAYS["1 step"](truth))


def test_what_spoils_a_mask(script: Any) -> None:
    """Higher classes grow or shrink in a disc; ignored pixels are of the nearest class before."""
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 10:20] = 1
    disc = {1: ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 0))}
    disc[2] = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if abs(dy) < 2 or dx == 0)
    for by, offsets in disc.items():
        moved = np.stack([np.roll(truth, offset, (0, 1)) for offset in offsets])
        assert np.array_equal(script.spoil(truth, "grown", by), moved.max(0))
        assert np.array_equal(script.spoil(truth, "shrunk", by), moved.min(0))
    cut = truth.copy()
    cut[8:12, :] = 255  # four rows are lost, each next to what it was
    assert np.array_equal(script.filled(cut), truth)
    beside = np.ones((20, 30), np.uint8)
    beside[:, 20:] = 255
    assert np.array_equal(script.spoil(beside, "shrunk", 2), np.ones_like(beside))  # nothing eats into it from there
    assert not script.filled(np.full((3, 4), 255, np.uint8)).any()


def test_what_is_repaired_is_scored(script: Any) -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 10:40] = 1
    truth[:5] = 255
    found = script.measure([truth])
    for row in found.values():
        assert row["before"].wrong > 0
        assert row["2 steps"].wrong < 0.2 * row["before"].wrong
    assert script.scores([truth], [truth]) == (100, 0)
    assert script.scores([np.where(truth == 255, 0, truth)], [truth]) == (100, 0)
    wrong = truth.copy()
    wrong[20, 20] = 0
    assert script.scores([wrong], [truth]).wrong == pytest.approx(100 / (35 * 60))
