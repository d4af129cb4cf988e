"""Gathered rows against `F.grid_sample`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn import grid_sample
from crispseg.nn.points import GROUP, gathers, sampling_by

KINDS = [("bilinear", outside, corners) for outside, corners in product(("zeros", "border"), (True, False))]
KINDS.append(("nearest", "border", True))


def points(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A map, and points of which many are outside, some far, and some at centres and corners of pixels."""
    torch.manual_seed(0)
    grid = 1.3 * (2 * torch.rand(shape[0], *size, 2) - 1)
    grid[:, 0] *= 5
    grid[:, 1] = torch.tensor([-1.0, 1.0])
    return torch.randn(shape), grid


@pytest.mark.parametrize(("mode", "outside", "corners"), KINDS)
@pytest.mark.parametrize("shape", [(2, 2 * GROUP + 3, 7, 9), (1, 3, 1, 5), (3, 8, 11, 1)])
def test_values_are_those_of_grid_sample(mode: Any, outside: Any, corners: bool, shape: tuple[int, ...]) -> None:
    source, grid = points(shape, (13, 6))
    options: Any = {"mode": mode, "padding_mode": outside, "align_corners": corners}
    expected = F.grid_sample(source, grid, **options)
    assert torch.equal(grid_sample(source, grid, **options), expected) and not gathers()
    with sampling_by("gather"):
        found = grid_sample(source, grid, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not gathers()


class Sampling(nn.Module):
    def forward(self, source: Tensor, grid: Tensor) -> Tensor:
        return grid_sample(source, grid, padding_mode="zeros", align_corners=False)


@pytest.mark.slow
def test_operators_of_opset_17_suffice(tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with sampling_by("gather"):
        traced = points((2, 70, 7, 9), (13, 6))
        sizes = {"source": dynamic, "grid": dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)}
        program = torch.export.export(Sampling(), traced, dynamic_shapes=sizes, strict=False)
    path = tmp_path / "sampling.onnx"
    names: Any = {"input_names": ["source", "grid"], "output_names": ["sampled"]}
    torch.onnx.export(program, (), path, dynamo=True, opset_version=19, external_data=False, verbose=False, **names)
    model = onnx.load(path)
    assert not {"GridSample"} & {node.op_type for node in model.graph.node}
    model.opset_import[0].version = 17
    for node in model.graph.node:  # an attribute of Split that opset 17 has not, and that follows from its inputs
        kept = [each for each in node.attribute if (node.op_type, each.name) != ("Split", "num_outputs")]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape, size in (((1, 70, 5, 12), (3, 8)), ((3, 70, 1, 2), (9, 4))):
        source, grid = points(shape, size)
        expected = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
        (found,) = session.run(None, {"source": source.numpy(), "grid": grid.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
