"""Counts and times of networks: what is measured is what `Segmenter` does, in turns and under the same conditions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import Segmenter, create_model
from crispseg.benchmarking import Conditions, Report, benchmark, count_multiply_adds, count_parameters
from crispseg.benchmarking.benchmark import Deployed, find_network
from crispseg.benchmarking.cost import Stopwatch, take_turns
from crispseg.cli.main import main

QUICK = Conditions((64, 96), backbone="test_efficientnet", num_classes=5, threads=1, device="cpu", repeats=2, warmup=1)
FLAGS = ["--size", "64", "96", "--backbone", "test_efficientnet", "--num_classes", "5", "--repeats", "2"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of three classes on grey images."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    torch.manual_seed(0)
    create_model("fpn", num_classes=3, backbone="test_resnet", in_chans=1, width=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def report(saved: Path) -> Report:
    return benchmark(["sfnet{width: 16}", str(saved)], QUICK)


def test_rows(report: Report, saved: Path) -> None:
    first, second = report.rows
    model = create_model("sfnet", num_classes=5, backbone="test_efficientnet", width=16)
    assert first.parameters == count_parameters(model) and first.multiply_adds == count_multiply_adds(model, 64, 96)
    assert (second.model, second.backbone, second.num_classes) == (str(saved), "test_resnet", 3)
    assert set(first.ratio.values()) == {1.0} and second.ratio["parameters"] == second.parameters / first.parameters
    for row in report.rows:
        stages = {"forward", "preprocess", "network", "postprocess", "total"}
        assert set(row.milliseconds) == stages and all(0 < ms.median <= ms.p95 for ms in row.milliseconds.values())


@pytest.mark.parametrize("name", ["sfnet{width: 16}", "sfnet{width: 16, refine: boundary}"])
def test_what_is_timed_is_what_a_segmenter_does(name: str) -> None:
    torch.manual_seed(0)
    network = find_network(name, QUICK)
    deployed = Deployed(network, QUICK, torch.device("cpu"))
    watch = Stopwatch(torch.device("cpu"))
    with torch.inference_mode():
        deployed(watch)
        logits = deployed._run(deployed.net if deployed.upsamples else deployed.net.coarse_logits, deployed.batch)
        (labels,) = deployed.postprocess(logits)
    assert watch.laps["total"] == sum(watch.laps[stage] for stage in ("preprocess", "network", "postprocess"))
    assert np.array_equal(labels, Segmenter(network)(deployed.images[0]).labels)


def test_all_take_their_turn_in_every_round() -> None:
    called: list[str] = []

    def turn(name: str) -> Callable[[Stopwatch], None]:
        return lambda watch: watch("stage", called.append, name)

    latencies = take_turns([turn("a"), turn("b")], range(3), warmup=1)
    assert called == ["a", "b"] * 3 and [set(each) for each in latencies] == [{"stage"}] * 2


def test_the_command(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "sfnet{width: 16}", str(saved), *FLAGS, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [model["backbone"] for model in found["models"]] == ["test_efficientnet", "test_resnet"]
    assert found["settings"]["size"] == [64, 96] and "sfnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["sfnett"],
        ["sfnet{width"],
        ["sfnet", "--size", "8", "96"],
        ["sfnet", "--repeats", "0"],
        ["sfnet", "--compile", "true", "--warmup", "0"],
        ["runs/none/model"],
        ["fpn", "--json", "/dev/null/a.json"],
    ],
)
def test_mistakes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *argv]) == 2
    captured = capsys.readouterr()
    assert not captured.out and len(captured.err.splitlines()) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    conditions: Any = Conditions((64, 96), backbone="test_efficientnet", device="cuda", repeats=2, dtype="bf16")
    assert benchmark(["sfnet{width: 16}"], conditions).device.type == "cuda"
