"""Gathered rows against `F.grid_sample`."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

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
