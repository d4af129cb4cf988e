"""Every option's part exports: ONNX and torch.export agree with the model at sizes of which none was traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crispseg import export

from .base import ModelTester

OPTIONS: dict[str, dict[str, Any]] = {
    "no context, nearest, 1×1": {"context": "conv", "flow_upsampling": "nearest", "flow_kernel": 1},
    "ASPP, deconvolution, 7×7": {"context": "aspp", "flow_upsampling": "deconvolution", "flow_kernel": 7},
    "DenseASPP, correlation": {"context": "denseaspp", "flow_net": "correlation", "fuse_levels": [5]},
    "non-local, aligned": {"context": "nonlocal", "merge": "aligned"},
    "DCN": {"fuse": "dcn"},
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
def test_options_of_sfnet_export(options: str, tmp_path: Path) -> None:
    class Tester(ModelTester):
        name = "sfnet"

    check(Tester.build_lively(**OPTIONS[options]), tmp_path)


@pytest.mark.slow
def test_a_dilated_fcn_exports(tmp_path: Path) -> None:
    class Tester(ModelTester):
        name = "fcn"

    check(Tester.build_lively(output_stride=8), tmp_path)
