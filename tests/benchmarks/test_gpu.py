"""`benchmarks/gpu.py`, with tiny sizes on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch


@pytest.fixture
def gpu(script: Callable[[str], ModuleType]) -> ModuleType:
    pytest.importorskip("segmentation_models_pytorch")
    return script("gpu")


def test_rows_are_measured_once(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in gpu.plan(True) if row.kind == "segmenter"][:2]
    monkeypatch.setattr(gpu, "plan", lambda _: rows)
    words = ["--csv", str(tmp_path / "gpu.csv"), "--device", "cpu", "--tiny", "--rounds", "1"]
    gpu.main([*words, "--minutes", "0"])
    assert not (tmp_path / "gpu.csv").exists()
    gpu.main(words)
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert len(table) == len(rows) and (table.p50_ms > 0).all() and table.problem.isna().all()
    gpu.main(words)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "gpu.csv"), table)


def test_a_row_that_fails_names_its_reason(gpu: ModuleType) -> None:
    graph = next(row for row in gpu.plan(True) if row.way == "graph")
    assert "CUDA" in gpu.measure(graph, torch.device("cpu"), 1, tiny=True)["problem"]


@pytest.mark.slow
def test_a_row_of_every_kind_is_measured(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [*gpu.plan(True)]
    refined = next(row for row in every if row.what.startswith("unept/") and row.dtype == "fp32")
    rows = [*{(row.kind, row.way, row.dtype): row for row in reversed(every)}.values(), refined]
    monkeypatch.setattr(gpu, "plan", lambda _: rows)
    gpu.main(["--csv", str(tmp_path / "gpu.csv"), "--device", "cpu", "--tiny", "--rounds", "1", "--minutes", "15"])
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert len(table) == len(rows) and set(table.kind) == set(gpu.BUILDERS)
    assert set(table[table.problem.notna()].way) == {"graph"}  # which need CUDA
