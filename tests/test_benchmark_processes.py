"""What the measurements in benchmarks/ share: calls in processes of their own, and a script that uses little else."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crispseg.errors import CrispsegError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
measures = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("processes")


def allocating() -> Callable[[int], object]:
    """In its process: a call that holds twice as many MiB as it gives back; 0 asks too little, -1 ends the process."""

    def call(mebibytes: int) -> Tensor:
        if mebibytes == 0:
            raise CrispsegError("0 MiB are nothing")
        if mebibytes < 0:
            os._exit(1)
        kept, dropped = (torch.ones(mebibytes, 2**18) for _ in range(2))
        return kept.add_(dropped)

    return call


@pytest.mark.slow
@measures
def test_memory_is_the_peak_of_a_call(processes: Any, refuses: Any) -> None:
    with processes.process("ours", allocating, threads=1, hold_back=False) as call:
        for mebibytes in (64, 16, 64):
            cost = call(mebibytes)
            assert cost.mebibytes == pytest.approx(2 * mebibytes, abs=4)
            assert cost.seconds > 0
        with refuses("0 MiB are nothing"):
            call(0)
    with processes.process("ours", allocating, threads=1, hold_back=False) as call, refuses("'ours'", "smaller size"):
        call(-1)


def test_a_call_gives_what_autograd_gives(processes: Any) -> None:
    inputs = torch.randn(3), torch.randn(3)
    gradient = torch.randn(3)
    call = processes.differentiated(torch.mul, inputs, gradient)
    (output,) = call(False)
    assert not output.requires_grad
    again, *gradients = call(True)
    assert again.requires_grad
    torch.testing.assert_close([output, *gradients], [again, gradient * inputs[1], gradient * inputs[0]])
    assert not call(False)[0].requires_grad


def test_cost_of_several_calls(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of the seconds but the first, the most memory of all, the memory without a hold."""

    def take_turns(ways: Any, threads: int, rounds: int, hold_back: bool) -> Any:
        costs = [(9, 70), (1, 50), (2, 60), (6, 50)] if hold_back else [(4, 30)]
        assert rounds == len(costs)
        return {
            (way, backward): [processes.Cost(*cost) for cost in costs] for way in ways for backward in (False, True)
        }

    monkeypatch.setattr(processes, "_take_turns", take_turns)
    cost = processes.Cost(2, 70, 30)
    assert processes.measure({"a": allocating}, 1, 3) == {False: {"a": cost}, True: {"a": cost}}


def test_there_is_no_share_of_nothing(processes: Any) -> None:
    assert processes.ratio(3, 2) == "1.50"
    assert processes.ratio(3, 0) == "–"


def test_deformable_attention_prints_its_tables(
    processes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    script = importlib.import_module("deformable_attention")

    def measure(ways: Any, threads: int, rounds: int) -> Any:
        shapes = {way: [tuple(each.shape) for each in prepare()(True)] for way, prepare in ways.items()}
        values, points = (1, 18, 8, 32), (1, 18, 8, 2, 4)
        assert shapes == {way: [(1, 18, 256), values, (*points, 2), points] for way in ("hugging face", "crispseg")}
        costs = {"hugging face": processes.Cost(2, 60, 50), "crispseg": processes.Cost(3, 30, 10)}
        return {False: costs, True: costs}

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(processes, "forget_peak", lambda: None)  # which not all systems have
    script.main(["--size=20", "--stride=8", "--levels=2", "--points=4", "--rounds=1", "--threads=1"])
    printed = capsys.readouterr().out
    assert re.search(r"agree within \de-\d\d in float64", printed)
    assert "2 levels of 3×3, each pixel a query" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    theirs = ["hugging face", "2.000", "1.00", "60", "1.00", "50", "1.00"]
    assert rows == 2 * [theirs, ["crispseg", "3.000", "1.50", "30", "0.50", "10", "0.20"]]
