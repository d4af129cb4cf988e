"""Every option's part exports: ONNX and torch.export agree with the model at sizes of which none was traced."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from crispseg import export

from .base import ModelTester

# Several in one graph, and in one step: at the others they would only repeat themselves.
OPTIONS: dict[str, dict[str, Any]] = {
    "non-local, aligned, nearest, 1×1": {
        "context": "nonlocal",
        "merge": "aligned",
        "flow_upsampling": "nearest",
        "flow_kernel": 1,
    },
    "DenseASPP, correlation, deconvolution, 7×7": {
        "context": "denseaspp",
        "flow_net": "correlation",
        "flow_upsampling": "deconvolution",
        "flow_kernel": 7,
    },
    "ASPP, DCN": {"context": "aspp", "fuse": "dcn"},
    "Context Fusion Block": {"fuse": "cfb"},
}


def check(model: Any, folder: Path) -> None:
    program = export.trace(model)
    export.write_onnx(program, folder / "model.onnx", "{}")
    export.write_torch(program, folder / "model.pt2", "{}")
    for run, _ in (export.open_onnx(folder / "model.onnx"), export.open_torch(folder / "model.pt2")):
        for size in ((1, 33, 57), (2, 97, 160), (1, 130, 64)):
            comparison = export.compare(run, model, size)
            assert comparison.agrees, comparison


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_sfnet_export(options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tester(ModelTester):
        name = "sfnet"

    module = importlib.import_module("crispseg.models.sfnet")  # the package has a function of that name
    monkeypatch.setattr(module, "MAX_DISPLACEMENT", 1)  # 9 products in the graph, not 81 of the same kind
    check(Tester.build_lively(**OPTIONS[options], fuse_levels=[5]), tmp_path)
