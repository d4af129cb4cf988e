"""The measurement of the metrics in benchmarks/, on a small image."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
pytestmark = pytest.mark.filterwarnings("ignore:.*binary_dilation:FutureWarning")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("metrics")


def test_it_prints_ratios(script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(ways: Any, rounds: int) -> Any:
        measured = real(ways, rounds)
        assert measured.keys() == ways.keys() and min(measured.values()) > 0
        return {name: 0.5 if name == "crispseg" else 4.0 for name in measured}

    real = script.measure
    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(script.cv2, "setNumThreads", lambda threads: None)  # of this process
    script.main(["--height=96", "--width=192", "--rounds=2", "--threads=1"])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    ours = ["crispseg", "0.5000", "1.0", ""]
    matrix = [["torchmetrics", "4.0000", "8.0", "at least 10"], ours]
    matrix.append(["crispseg, counts of each image", "4.0000", "8.0", ""])
    boundary = [[name, "4.0000", "8.0", f"at least {goal}"] for name, goal in (("scikit-image", 20), ("OpenCV", 2))]
    assert rows == [*matrix, *matrix, *boundary, ours]
    assert "boundary F at 3, 5, 9, 12 px" in printed
    found = re.search(r"All counts are equal. Boundary pixels: (\d+) of the truth, (\d+) of the prediction", printed)
    assert found and 1000 < int(found[1]) < int(found[2]) < 8000


def test_ways_that_differ_are_refused(script: Any) -> None:
    labels = script.make_pair(64, 96)
    prediction, truth = (torch.from_numpy(each)[None].long() for each in labels)
    for make in (script.matrix_ways, script.boundary_ways):
        ways = make(prediction, truth)
        other = make(torch.where(prediction == 0, 1, prediction), truth)
        name = next(iter(ways))
        with pytest.raises(AssertionError, match=f"{name} counts other things"):
            script.measure({**ways, name: other[name]}, 1)


def test_the_image(script: Any) -> None:
    prediction, truth = script.make_pair(128, 256)
    assert prediction.dtype == truth.dtype == np.uint8 and prediction.shape == truth.shape == (128, 256)
    assert 0.7 < (prediction == truth).mean() < 0.97
    assert len(np.unique(truth)) > 14 and max(truth.max(), prediction.max()) < script.CLASSES == 19
    np.testing.assert_array_equal(script.make_pair(128, 256)[0], prediction)
