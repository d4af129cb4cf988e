"""Before the first step, files are opened a few times, and folders are listed a few times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from dataset_trees import save
from opened import start_counting, times_listed, times_opened

import crispseg

COUNT = 24
TINY: dict[str, Any] = {
    "model": {"name": "fpn", "backbone": "test_efficientnet", "pretrained": False, "width": 8},
    "augment": {"crop": 32, "repeat": 1},
    "iterations": 1,
    "batch_size": 2,
    "workers": 0,
    "loggers": [],
    "accelerator": "cpu",
    "precision": "fp32",
}


class AtFirstStep(L.Callback):
    """Notes the counts when the first step begins."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.opened: dict[str, int] = {}
        self.listed = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.listed = times_listed(self.data)
        self.opened = {str(file): times_opened(file) for file in self.data.rglob("*.png")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for index in range(COUNT):
        save(tmp_path / f"data/images/{index}.png", random.integers(0, 256, (40, 48, 3), np.uint8))
        save(tmp_path / f"data/masks/{index}.png", random.integers(0, 3, (40, 48), np.uint8))
    return tmp_path / "data"


def first_step(data: Path, out: Path) -> AtFirstStep:
    """The counts of a training."""
    counts = AtFirstStep(data)
    start_counting()
    crispseg.train(data, callbacks=[counts], out=out, **TINY)
    return counts


def test_reading_before_the_first_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start opens only the files of the first batch and of the picture."""
    monkeypatch.setenv("CRISPSEG_CACHE", str(tmp_path / "cache"))
    first = first_step(data, tmp_path / "run")
    assert len(first.opened) == 2 * COUNT
    assert 1 <= min(first.opened.values()) <= max(first.opened.values()) <= 3
    assert first.listed <= 6
    second = first_step(data, tmp_path / "again")
    assert max(second.opened.values()) <= 2
    assert sum(second.opened.values()) < 2 * COUNT
    assert second.listed <= 6
