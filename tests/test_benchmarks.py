"""The measurements in benchmarks/: that what they compare is equal, and that they print it. Nothing is timed."""

from __future__ import annotations

import importlib
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crispseg.models.boundary_targets import boundary_targets
from crispseg.models.ddsm import Affinity
from crispseg.models.refinement import STEPS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """A script by its name; its threads stay this process's."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def imported(name: str) -> ModuleType:
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        for library, setting in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
            if hasattr(module, library):
                monkeypatch.setattr(getattr(module, library), setting, lambda threads: None)
        return module

    return imported


def table_rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]


# Attention --------------------------------------------------------------------------------------------------------


def test_all_ways_of_sampled_attention_agree(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("sampled_attention")
    assert 0 < module.largest_difference(points=9) < 1e-9

    def unmodulated(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
        found: Tensor = module.ours(query, key, value, grid, modulation.sqrt())
        return found

    monkeypatch.setitem(module.WAYS, "wrong", unmodulated)
    with pytest.raises(AssertionError, match=r"^wrong: "):
        module.largest_difference(points=9)


def test_our_sampled_attention_is_what_ddsm_does(script: Script) -> None:
    affinity = Affinity(6, 9)
    nn.init.normal_(affinity.sampler.predict.weight)
    query, key, value = torch.randn(3, 2, 6, 9, 7).unbind(0)
    result = script("sampled_attention").ours(query, key, value, *affinity.sampler(key))
    torch.testing.assert_close(result, affinity(query, key, value), rtol=0, atol=0)


def test_deformable_attention_prints_its_tables(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    processes, module = script("processes"), script("deformable_attention")

    def measure(ways: Any, threads: int, rounds: int) -> Any:
        shapes = {way: [tuple(each.shape) for each in prepare()(True)] for way, prepare in ways.items()}
        values, points = (1, 18, 8, 32), (1, 18, 8, 2, 4)
        assert shapes == {way: [(1, 18, 256), values, (*points, 2), points] for way in ("hugging face", "crispseg")}
        costs = {"hugging face": processes.Cost(2, 60, 50), "crispseg": processes.Cost(3, 30, 10)}
        return {False: costs, True: costs}

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(processes, "forget_peak", lambda: None)  # which not all systems have
    module.main(["--size=20", "--stride=8", "--levels=2", "--points=4", "--rounds=1", "--threads=1"])
    printed = capsys.readouterr().out
    assert re.search(r"agree within \de-\d\d in float64", printed)
    theirs = ["hugging face", "2.000", "1.00", "60", "1.00", "50", "1.00"]
    assert table_rows(printed) == 2 * [theirs, ["crispseg", "3.000", "1.50", "30", "0.50", "10", "0.20"]]


# Metrics, targets and refinement ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*binary_dilation:FutureWarning")
def test_metrics_that_differ_are_refused(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    module = script("metrics")
    module.main(["--height=96", "--width=192", "--rounds=1", "--threads=1"])
    printed = capsys.readouterr().out
    assert "All counts are equal." in printed
    names = [row[0] for row in table_rows(printed)]
    matrix = ["torchmetrics", "crispseg", "crispseg, counts of each image"]
    assert names == [*matrix, *matrix, "scikit-image", "OpenCV", "crispseg"]
    prediction, truth = (torch.from_numpy(each)[None].long() for each in module.make_pair(64, 96))
    for make in (module.matrix_ways, module.boundary_ways):
        ways = make(prediction, truth)
        other = make(torch.where(prediction == 0, 1, prediction), truth)
        name = next(iter(ways))
        with pytest.raises(AssertionError, match=f"{name} counts other things"):
            module.measure({**ways, name: other[name]}, 1)


def test_boundary_targets_that_differ_are_refused(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for directions that are halfway between two."""
    pytest.importorskip("scipy")
    module = script("boundary_targets")
    module.main(["--height=72", "--width=96", "--count=2", "--rounds=1"])
    printed = capsys.readouterr().out
    assert [row[0] for row in table_rows(printed)] == ["SciPy, whole image", "crispseg"]
    assert "2 masks of 96×72 pixels" in printed and "All targets are equal, but for" in printed
    plain, angles = np.array([[0, 2, 8]], np.uint8), np.array([[0.5, 2, 0]])
    assert module.halfway(np.array([[1, 2, 8]], np.uint8), plain, angles) == 1
    for ours in ([[7, 2, 8]], [[8, 2, 8]], [[0, 3, 8]], [[0, 2, 0]]):
        with pytest.raises(AssertionError, match="other targets at 1 pixels"):
            module.halfway(np.array(ours, np.uint8), plain, angles)


def test_steps_of_refinement_follow_the_directions(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    """Step by step, pixel by pixel; ignored pixels and those of no boundary stay."""
    module = script("refinement_steps")
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
        found = module.WAYS[way](truth)[0].numpy()
        for y, x in np.ndindex(*truth.shape):
            to = np.clip((y + found[1, y, x], x + found[0, y, x]), 0, (23, 29))
            assert tuple(to) == walked(y, x, steps), (way, y, x)
    found = module.WAYS["doubled"](truth)[0].numpy()
    assert np.array_equal(found, 2 * module.WAYS["1 step"](truth)[0].numpy())
    found = module.measure([truth])
    assert all(row["2 steps"].wrong < 0.2 * row["before"].wrong for row in found.values())
    module.main(["--height=72", "--width=96", "--count=1"])
    names = [row[0] for row in table_rows(capsys.readouterr().out)]
    assert names == 2 * ["grown 1 px", "shrunk 1 px", "grown 2 px", "shrunk 2 px"]


# Very many images -------------------------------------------------------------------------------------------------


def test_killed_processes_are_started_again(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, started = script("many_images"), []

    def start(run: str, folder: Path, out: str, share: str) -> subprocess.Popen[bytes]:
        started.append(share)
        return subprocess.Popen(["sleep", "2"])

    monkeypatch.setattr(module, "start", start)
    assert module.killed("run", tmp_path, 3, 0.4, random.Random(0)) == 3
    assert started[:3] == ["1/3", "2/3", "3/3"] and len(started) == 6


def test_prediction_beside_the_network(script: Script, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    module = script("predict_speed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = ["--images=3", "--rounds=1", "--threads=1", "--model=fpn", "--backbone=test_efficientnet"]
    monkeypatch.setattr(sys, "argv", ["predict_speed.py", *flags])
    module.main()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[-3:]]
    for _, _, rate, ratio, _ in rows:
        assert float(ratio.split()[0]) == pytest.approx(float(rate) / float(rows[0][2]), abs=0.02)
