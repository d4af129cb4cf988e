"""torch.compile: one graph for images of any size, and the same results."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from training_runs import files, of_many_opinions

from crispseg import Segmenter, create_model
from crispseg.benchmarking import Conditions, benchmark
from crispseg.cli.main import main
from crispseg.export.pipeline import export_model
from crispseg.inference.acceleration import compiled, whole_number_padding
from crispseg.io.images import write_image

CPU = torch.device("cpu")
SIZES = ((192, 256), (200, 180), (180, 200), (224, 224), (300, 150), (177, 260))
"""Large enough that no map is one of the few thousand values that PyTorch convolves otherwise."""


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Graphs are traced and counted, and no compiler for C++ is needed."""
    counter: Any = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    monkeypatch.setenv("CXX", sys.executable)
    torch.compiler.reset()
    yield counter
    torch.compiler.reset()


@pytest.mark.slow
def test_one_graph_for_images_of_any_size(tracing: Any) -> None:
    """Of a backbone with TensorFlow's padding, whose sizes are the hardest to trace."""
    model = create_model("crisp", num_classes=3, backbone="tf_mobilenetv3_small_minimal_100", width=8).eval()
    run = compiled(model.coarse_logits, CPU)
    with torch.inference_mode():
        for size in SIZES:
            images = torch.randn(1, 3, *size)
            torch.testing.assert_close(run(images), model.coarse_logits(images), rtol=1e-4, atol=1e-4)
    assert tracing.frame_count == 1


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
def test_a_segmenter_compiles_and_computes_the_same(tmp_path: Path) -> None:
    """Traced and split into PyTorch's basic operators, but not into C++; the same by `crispseg predict --compile`."""
    model = of_many_opinions(3)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    eager, ready = Segmenter(model, "cpu"), Segmenter(model, "cpu", compile=True)
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate(SIZES[:3]):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        torch.testing.assert_close(ready.logits(image), eager.logits(image), rtol=1e-4, atol=1e-4)
        assert (ready.labels(image) == eager.labels(image)).mean() > 0.999
        write_image(tmp_path / "in" / f"{index}.png", image)
    argv = ["predict", str(tmp_path / "model"), str(tmp_path / "in"), "--device", "cpu", "--compile", "true"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert {f"{index}.png" for index in range(3)} <= files(tmp_path / "out")


@pytest.mark.slow
def test_networks_are_timed_compiled(tmp_path: Path, tracing: Any, refuses: Any) -> None:
    settings = Conditions((64, 96), backbone="test_efficientnet", device="cpu", repeats=1, warmup=1, compile=True)
    report = benchmark(["fpn{width: 8}", "fpn{width: 12}"], settings)
    assert len(report.rows) == 2 and tracing.frame_count >= 2
    model = create_model("fpn", num_classes=2, backbone="test_efficientnet", width=8)
    file = tmp_path / "model.onnx"
    export_model(model, file, "onnx", rounds=1)
    with refuses("is compiled already; leave compile out"):
        benchmark([str(file)], settings)
    with refuses("warmup is 0"):
        benchmark(["fpn"], dataclasses.replace(settings, warmup=0))
    with refuses("is compiled already; leave compile out"):
        Segmenter(file, compile=True)


def test_what_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with refuses(
        "compile needs a C++ compiler on a CPU, and there is no g++" if sys.platform == "linux" else "compile needs"
    ):
        Segmenter(of_many_opinions(2), "cpu", compile=True)


@pytest.mark.parametrize("length", [32, 33, 97, 128])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 2, 1), (5, 2, 1), (1, 2, 1), (3, 1, 2), (7, 4, 1)])
def test_padding_in_whole_numbers_is_timm_s(length: int, kernel: int, stride: int, dilation: int) -> None:
    from timm.layers import padding

    expected = padding.get_same_padding(length, kernel, stride, dilation)
    with whole_number_padding():
        assert padding.get_same_padding(length, kernel, stride, dilation) == expected
