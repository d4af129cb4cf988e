"""The measurement of boundary targets in benchmarks/, on a few small masks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_trees import save

pytest.importorskip("scipy")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(cv2, "setNumThreads", lambda threads: None)  # of this process
    module = importlib.import_module("boundary_targets")
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    return module


def test_it_prints_masks_a_second(
    script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(ways: Any, masks: Any, rounds: int) -> Any:
        measured = real(ways, masks, rounds)
        assert measured.keys() == ways.keys() and min(measured.values()) > 0
        return {name: 0.01 if name == "crispseg" else 0.08 for name in measured}

    real = script.measure
    monkeypatch.setattr(script, "measure", measure)
    script.main(["--height=72", "--width=96", "--count=3", "--rounds=2"])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert rows == [["SciPy, whole image", "80.00", "12.5", "8.0"], ["crispseg", "10.00", "100.0", "1.0"]]
    assert "3 masks of 96×72 pixels" in printed and "All targets are equal, but for" in printed


def test_scenes_have_eleven_classes(script: Any) -> None:
    masks = importlib.import_module("masks").scene_masks(2, 360, 480)
    assert [mask.shape for mask in masks] == [(360, 480)] * 2
    assert all(np.unique(mask).tolist() == list(range(11)) for mask in masks)


def test_masks_of_a_folder(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.repeat(np.array([[0, 3, 11]], np.uint8), 4, 0)
    for name in "abc":
        save(tmp_path / f"{name}.png", mask)
    found = importlib.import_module("masks").masks_of(tmp_path, 2, 8, 6, 11)
    assert len(found) == 2 and np.array_equal(found[0], np.repeat([[0, 0, 3, 3, 255, 255]], 8, 0))
    script.main([f"--masks={tmp_path}", "--rounds=1", "--height=8", "--width=6", "--ignored=11"])
    assert "3 masks of 6×8 pixels, on average 2.0 classes" in capsys.readouterr().out
    save(tmp_path / "a.png", np.zeros((4, 3, 3), np.uint8))
    for folder, phrase in ((tmp_path, "a.png holds no class ids"), (tmp_path / "none", "none is missing")):
        with pytest.raises(SystemExit) as stopped:
            script.main([f"--masks={folder}"])
        assert stopped.value.code == 2 and phrase in capsys.readouterr().err


def test_other_targets_are_refused(script: Any) -> None:
    """But for directions that are halfway between two."""
    plain, angles = np.array([[0, 2, 8]], np.uint8), np.array([[0.5, 2, 0]])
    assert script.halfway(plain, plain, angles) == 0
    assert script.halfway(np.array([[1, 2, 8]], np.uint8), plain, angles) == 1
    for ours in ([[7, 2, 8]], [[8, 2, 8]], [[0, 3, 8]], [[0, 2, 0]]):
        with pytest.raises(AssertionError, match="other targets at 1 pixels"):
            script.halfway(np.array(ours, np.uint8), plain, angles)


def test_the_plain_way_sees_ignored_pixels_as_no_class(script: Any) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], size=(6, 8)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
    for mask in (labels, np.where(labels == 0, labels, np.uint8(255))):
        script.halfway(script.BoundaryTargets(5)(mask), *script.plain_targets(mask))
