"""benchmarks/boundary_budget.py: its oracles and its kinds of wrong pixels, on drawn masks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispseg.io.images import read_image
from crispseg.training import Run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    yield importlib.import_module("boundary_budget")
    sys.modules.pop("boundary_budget")


def test_an_oracle_keeps_what_its_cells_can_hold(script: Any) -> None:
    truth = np.zeros((33, 50), np.uint8)
    truth[:, 24:] = 1
    truth[:, 8:10] = 2
    truth[5, 5] = 255
    known = truth != 255
    assert np.array_equal(script.oracle(truth, 3, 1)[known], truth[known])
    assert np.array_equal(script.oracle(truth, 3, 2)[known], truth[known])
    coarse = script.oracle(truth, 3, 8)
    assert not (coarse == 2).any()  # a line of a quarter of the cell
    assert np.array_equal(coarse[:, 24:], truth[:, 24:])


def test_kinds_of_wrong_pixels(script: Any) -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 1
    truth[10:30, 5:7] = 2
    labels = np.zeros_like(truth)
    labels[:, 28:] = 1  # 80 pixels moved
    labels[0:10, 50:60] = 0  # 100 confused; the line of 40 pixels is not found
    budget = script.Budget(3)
    budget.add(labels, truth, [truth])
    assert budget.wrong == {"thin": 40, "moved": 80, "confused": 100, "agreed": 0}
    assert budget.shares() == ["9.17", "1.67", "3.33", "4.17", "0"]
    budget.add(labels, truth, [labels])
    assert budget.shares()[-1] == "50"


def test_runs_are_named_apart(script: Any) -> None:
    assert script.short(["runs/a", "runs/b/"]) == ["a", "b"]
    assert script.short(["one/a", "two/a"]) == ["one/a", "two/a"]


def test_it_prints_and_draws_both_tables(
    script: Any, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(tiny_run.folder), "--figure", str(tmp_path / "budget.png"), "--classes", "pole"])
    printed = capsys.readouterr().out
    assert all(f"oracle, stride {stride}" in printed for stride in (2, 4, 8))
    assert f"{tiny_run.miou:.1f}" in printed and "confused" in printed and "pole" in printed
    assert read_image(tmp_path / "budget.png").shape[1] > 800
    with pytest.raises(SystemExit):
        script.main([str(tiny_run.folder), "--classes", "lamp"])
    assert "no class is named lamp; give some of road" in capsys.readouterr().err
