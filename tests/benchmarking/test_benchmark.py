"""Counts and times of networks: what is measured is what `Segmenter` does, in turns and under the same conditions."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import create_model
from crispseg.benchmarking import Conditions, Report, benchmark, count_multiply_adds, count_parameters
from crispseg.benchmarking.benchmark import find_network, stages
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
    for row in report.rows:
        assert all(0 < row.milliseconds[stage].median <= row.milliseconds[stage].p95 for stage in ("forward", "total"))


@pytest.mark.parametrize("name", ["sfnet{width: 16}", "sfnet{width: 16, refine: boundary}"])
def test_what_is_timed_is_what_a_segmenter_does(name: str) -> None:
    timed = stages(find_network(name, QUICK), QUICK, torch.device("cpu"))
    with torch.inference_mode():
        assert timed["forward"]().shape == (1, 5, 64, 96)
        assert timed["total"]().shape == (64, 96)


def test_the_command(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "sfnet{width: 16}", str(saved), *FLAGS, "--json", str(tmp_path / "a.json")]) == 0
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [model["backbone"] for model in summary["models"]] == ["test_efficientnet", "test_resnet"]
    assert summary["settings"]["size"] == [64, 96] and "sfnet" in capsys.readouterr().out


def test_speed_is_plotted_against_miou(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFNet, Fig. 1."""
    rows = [dataclasses.replace(row, miou=miou) for row, miou in zip(report.rows, (None, 71.5), strict=True)]
    (axes,) = dataclasses.replace(report, rows=rows).figure().axes
    ((speed, miou),) = axes.lines[0].get_xydata()
    assert (speed, miou) == (1000 / rows[1].milliseconds["forward"].median, 71.5)
    assert [text.get_text() for text in axes.texts] == [rows[1].model]
    trained = create_model("fpn", num_classes=5, backbone="test_efficientnet", width=16)
    trained.info = dataclasses.replace(trained.info, metrics={"val_miou": 60.0})
    trained.save_pretrained(tmp_path / "trained")
    assert main(["benchmark", str(tmp_path / "trained"), *FLAGS, "--plot", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["benchmark", "fpn{width: 16}", *FLAGS, "--plot", str(tmp_path / "none.png")]) == 2
    assert "val mIoU" in capsys.readouterr().err


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
        ["fpn", "--plot", "a.txt"],
    ],
)
def test_mistakes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *argv]) == 2
    captured = capsys.readouterr()
    assert not captured.out and len(captured.err.splitlines()) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    conditions: Any = Conditions((64, 96), backbone="test_efficientnet", device="cuda", repeats=2, precision="bf16")
    assert benchmark(["sfnet{width: 16}"], conditions).device.type == "cuda"
