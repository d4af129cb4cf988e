from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from crispseg.nn import BinAverages, resize

GRIDS = (1, 2, 3, 6)


def expected(feature: Tensor) -> list[Tensor]:
    return [F.adaptive_avg_pool2d(feature, grid).flatten(2) for grid in GRIDS]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 2))
def test_averages_are_those_of_adaptive_pooling(height: int, width: int, batch: int) -> None:
    feature = torch.randn(batch, 3, height, width)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        averages = BinAverages(GRIDS)(feature.to(memory_format=memory_format))
        torch.testing.assert_close(list(averages), expected(feature), atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_adaptive_pooling() -> None:
    one, other = (torch.arange(2.0 * 3 * 7 * 10).sin().view(2, 3, 7, 10).requires_grad_() for _ in range(2))
    for feature, averages in ((one, BinAverages(GRIDS)(one)), (other, expected(other))):
        sum(level.square().sum() for level in averages).backward()
        assert feature.grad.any()
    torch.testing.assert_close(one.grad, other.grad)


def test_bfloat16_averages_are_as_exact_as_bfloat16_is() -> None:
    feature = (torch.randn(2, 3, 33, 47) + 10).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        averages = BinAverages(GRIDS)(feature)
    for ours, exact in zip(averages, expected(feature.float()), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), exact, atol=0, rtol=2**-7)  # two roundings, of the sum and the mean
    constant = torch.full((1, 1, 7, 11), 3.0).bfloat16()
    assert all((averages == 3).all() for averages in BinAverages(GRIDS)(constant))


class Resize(nn.Module):
    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like.shape[-2:], align_corners=self.align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
def test_an_exported_resize_does_not_remember_its_example(align_corners: bool) -> None:
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    module = Resize(align_corners)
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        example = (torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4))  # equal sizes: no resize at all
        program = torch.export.export(module, example, dynamic_shapes=(sides, sides), strict=False).module()
    for size in ((1, 1), (1, 5), (4, 1), (7, 6), (3, 4)):
        x, like = torch.randn(1, 2, 3, 4), torch.randn(1, 2, *size)
        torch.testing.assert_close(program(x, like), module(x, like), atol=1e-6, rtol=0)
