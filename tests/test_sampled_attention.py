"""The measurement of sampled attention in benchmarks/, on small inputs."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crispseg.models.ddsm import Affinity

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, under a name by which the processes that it starts find it too."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("sampled_attention")
    monkeypatch.setitem(sys.modules, "sampled_attention", module)
    return module


def test_all_ways_agree(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < script.largest_difference(points=9) < 1e-9

    def unmodulated(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
        found: Tensor = script.ours(query, key, value, grid, modulation.sqrt())
        return found

    monkeypatch.setitem(script.WAYS, "wrong", unmodulated)
    with pytest.raises(AssertionError, match=r"^wrong: "):
        script.largest_difference(points=9)


def test_ours_is_what_ddsm_does(script: Any) -> None:
    affinity = Affinity(6, 9)
    nn.init.normal_(affinity.sampler.predict.weight)
    query, key, value = torch.randn(3, 2, 6, 9, 7).unbind(0)
    result = script.ours(query, key, value, *affinity.sampler(key))
    torch.testing.assert_close(result, affinity(query, key, value), rtol=0, atol=0)


def test_points_are_displaced_by_pixels(script: Any) -> None:
    (_, _, _, grid, modulation), _ = script.make_inputs(16, 40, 40, 9, torch.float32)
    centre = torch.arange(40)
    displacement = (grid[0, 4, ..., 0] + 1) * 40 / 2 - 0.5 - centre  # the middle one of 3×3 points
    assert displacement.std() == pytest.approx(script.DISPLACEMENT, rel=0.2)
    assert 0 < modulation.min() < 0.2 < 0.8 < modulation.max() < 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_it_prints_sane_numbers(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {way: script.WAYS[way] for way in ("naive", "crispseg")}
    monkeypatch.setattr(script, "WAYS", few)
    monkeypatch.setattr(script, "NAIVE", ["naive"])
    channels, side, points = 16, 64, 25
    script.main([f"--channels={channels}", f"--size={side}", f"--points={points}", "--rounds=1", "--threads=1"])
    printed = capsys.readouterr().out
    assert re.search(r"agree within \de-\d\d in float64", printed)
    rows: dict[str, list[list[float]]] = {way: [] for way in few}
    for line in printed.splitlines():
        way, *numbers = (cell.strip() for cell in line.strip("│").split("│"))
        if way in rows:
            rows[way].append([float(number) for number in numbers])
    copy = channels * points * side**2 * 4 / 2**20  # MiB: what is sampled at all points
    for forward, both in rows.values():
        assert min(*forward, *both) > 0
        assert both[4] > forward[4]  # MiB used
    forward, both = rows["naive"]
    assert forward[1::2] == both[1::2] == [1, 1, 1]
    assert 1.9 * copy < forward[4] < 2.5 * copy  # two copies and what is small
    assert 5 * copy < both[4] < 8 * copy
    assert rows["crispseg"][1][4] < both[4] / 2
    assert re.findall(r"crispseg: (\S+) of the time", printed) == [f"{each[1]:.2f}" for each in rows["crispseg"]]


def test_user_mistakes_are_one_line(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for argv, phrase in ((["--points=8"], "8 points"), (["--rounds=0"], "'0'"), ([], "use Linux")):
        if not argv:
            monkeypatch.setattr(sys.modules["processes"], "PROCESS", tmp_path / "none")
        with pytest.raises(SystemExit) as caught:
            script.main(argv)
        assert caught.value.code == 2
        assert phrase in capsys.readouterr().err.splitlines()[-1]
