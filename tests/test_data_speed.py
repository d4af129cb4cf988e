"""The measurement of data loading in benchmarks/, on a few images."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_it_prints_a_rate_and_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for index in range(count):
            save(tmp_path / split / f"{index}.png", random.integers(0, 256, (36, 48, 3), np.uint8))
            save(tmp_path / f"{split}annot" / f"{index}.png", random.integers(0, 12, (36, 48), np.uint8))
        lines = (f"{split}/{index}.png {split}annot/{index}.png\n" for index in range(count))
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(BENCHMARKS)
    importlib.import_module("data_speed").main([f"--root={tmp_path}", "--workers=1"])
    shown = capsys.readouterr().out
    assert re.search(r"training loader, 1 workers: [1-9]\d* images a second", shown)
    assert re.search(r"doctor: 7 pairs in \d+\.\d s", shown)
