"""Gathered rows against `F.grid_sample`, and the decoder of crisp by rows against crisp."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models.base import ODD, ModelTester

from crispseg.export.certificate import compare
from crispseg.export.gathered_rows import GROUP, RowSum, sampled_rows, with_row_sums


class Crisp(ModelTester):
    name = "crisp"


KINDS = [*product(["bilinear"], ["zeros", "border"], [True, False]), ("nearest", "border", True)]


@pytest.mark.parametrize(("mode", "outside", "corners"), KINDS)
@pytest.mark.parametrize("shape", [(2, 2 * GROUP + 3, 7, 9), (1, 3, 1, 5), (3, 8, 11, 1)])
def test_values_are_those_of_grid_sample(mode: Any, outside: Any, corners: bool, shape: tuple[int, ...]) -> None:
    """At points of which many are outside, some far, and some at centres and corners of pixels."""
    torch.manual_seed(0)
    source, grid = torch.randn(shape), 1.3 * (2 * torch.rand(shape[0], 13, 6, 2) - 1)
    grid[:, 0] *= 5
    grid[:, 1] = torch.tensor([-1.0, 1.0])
    expected = F.grid_sample(source, grid, mode=mode, padding_mode=outside, align_corners=corners)
    sampled = sampled_rows(source, grid, int(mode == "nearest"), int(outside == "border"), corners)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [8, GROUP + 8])
def test_crisp_by_rows_has_the_same_logits(width: int) -> None:
    model = Crisp.build_lively(width=width)
    by_rows = with_row_sums(copy.deepcopy(model).eval())
    assert isinstance(by_rows.decoder, RowSum)
    for size in ODD:
        comparison = compare(by_rows, model, size)
        assert comparison.difference is not None
        assert comparison.difference < 1e-4 * max(1, comparison.largest), comparison


@pytest.mark.parametrize("options", [{"align_corners": True}, {"fuse": "add"}, {"merge": "concat"}])
def test_other_decoders_stay(options: dict[str, Any]) -> None:
    model = Crisp.build_lively(**options)
    decoder = model.decoder
    assert with_row_sums(model).decoder is decoder
