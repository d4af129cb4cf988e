"""The measurement of training memory in benchmarks/, on a small network and small images."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from crispseg.refinement.targets import DIRECTIONS, NO_BOUNDARY
from crispseg.training.optimization import build_optimizer

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, under a name by which the processes that it starts find it too."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("training_memory")
    monkeypatch.setitem(sys.modules, "training_memory", module)
    return module


def test_batches_are_those_of_the_loader(script: Any) -> None:
    images, labels, targets = script.make_batch(script.settings("test_efficientnet", 2, "fp32"), 64)
    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == torch.float32
    assert labels.shape == targets.shape == (2, 64, 64)
    assert (labels.dtype, targets.dtype) == (torch.int64, torch.uint8)
    assert {NO_BOUNDARY} < {*targets.unique().tolist()} <= {*range(DIRECTIONS), NO_BOUNDARY}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_one_of_training(script: Any, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    config = script.settings("test_efficientnet", 1, precision)
    model = script.build(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen: list[tuple[torch.dtype, torch.Size]] = []
    model.classifier.register_forward_hook(lambda _m, _a, output: seen.append((output.dtype, output.shape)))
    monkeypatch.setattr(script, "build", lambda config: model)
    monkeypatch.setattr(script, "TINY", 32)
    monkeypatch.setattr(script, "REGION", 20)  # so that there are boundaries
    script.prepare(config)(40)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert seen == [(dtype, (1, 150, 4, 4)), (dtype, (1, 150, 5, 5))]
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not torch.equal(parameter, before[name]), name


def test_fixed_memory_is_that_of_a_training(script: Any) -> None:
    config = script.settings("test_efficientnet", 1, "fp32")
    model = script.build(config)
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    means = [each.nbytes for state in optimizer.state.values() for each in state.values() if each.ndim]
    weights, gradients, state = script.fixed_memory(model)
    assert weights == pytest.approx(sum(each.nbytes for each in model.state_dict().values()) / 2**20, rel=1e-4)
    assert state == pytest.approx(sum(means) / 2**20, rel=1e-3)  # a scalar parameter's have no dimension either
    assert gradients == state / 2


def test_growth_is_over_all_pixels_of_a_step(script: Any) -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(script.as_table(2, 1024, {100: 10.0, 200: 34.0, 300: 74.0}))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.get().splitlines() if "│" in line]
    assert rows == [
        ["100×100", "10", "500", "–", "1.00", "1.00", "1.01"],
        ["200×200", "34", "425", "400", "4.00", "3.40", "1.03"],
        ["300×300", "74", "411", "400", "9.00", "7.40", "1.07"],
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_it_prints_sane_numbers(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--backbones", "test_efficientnet", "--sizes", "128", "64", "--threads=1"])
    printed = capsys.readouterr().out
    assert "fp32, batch of 1, 1 threads" in printed
    fixed = sum(map(int, re.findall(r"(\d+) (?:MiB of weights|of gradients|of AdamW)", printed)))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["64×64", "128×128"]
    small, large = (float(row[1]) for row in rows)
    logits = 150 * 128**2 * 4 / 2**20  # MiB
    assert 4 * logits < large < 40 * logits
    assert 3 * small < large < 4.3 * small
    assert float(rows[1][4]) == 4
    assert float(rows[1][6]) == pytest.approx((fixed + large) / 1024, abs=0.01)
