"""Products with sampled features against `grid_sample` on all points at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.nn import sampled_dot, sampled_sum, sampling


def sampled(source: Tensor, grid: Tensor) -> Tensor:
    """All N copies at once, (B, C, N, H, W)."""
    every = F.grid_sample(source, grid.flatten(1, 2), padding_mode="zeros", align_corners=False)
    return every.unflatten(2, grid.shape[1:3])


def naive_dot(query: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    return (query[:, :, None] * sampled(source, grid)).sum(1)


def naive_sum(weights: Tensor, source: Tensor, grid: Tensor) -> Tensor:
    return (weights[:, None] * sampled(source, grid)).sum(2)


def case(
    batch: int, channels: int, points: int, fine: tuple[int, int], coarse: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query = torch.randn(batch, channels, *fine, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(batch, points, *fine, dtype=torch.float64, requires_grad=True)
    source = torch.randn(batch, channels, *coarse, dtype=torch.float64, requires_grad=True)
    grid = (2.4 * torch.rand(batch, points, *fine, 2, dtype=torch.float64) - 1.2).requires_grad_()  # some are outside
    return query, weights, source, grid


def rows(_source: Tensor, grid: Tensor, passes_over_source: bool = False) -> list[slice]:
    """Strips as on large maps, of one and two rows."""
    step = 2 if passes_over_source else 1
    return [slice(first, first + step) for first in range(0, grid.shape[2], step)]


@pytest.mark.parametrize("in_strips", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_naive_way(
    memory_format: torch.memory_format, in_strips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_strips:
        monkeypatch.setattr(sampling, "_strips", rows)
    query, weights, source, grid = case(2, 5, 4, (7, 6), (3, 8))
    for ours, naive, first in ((sampled_dot, naive_dot, query), (sampled_sum, naive_sum, weights)):
        inputs = (first, source.detach().contiguous(memory_format=memory_format).requires_grad_(), grid)
        result, expected = ours(*inputs), naive(*inputs)
        torch.testing.assert_close(result, expected)
        direction = torch.randn_like(expected)
        gradients = (torch.autograd.grad(output, inputs, direction) for output in (result, expected))
        for gradient, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(gradient, wanted)


def test_operators_are_well_formed() -> None:
    """Schemas, fake tensors and autograd registration, as torch checks them."""
    query, weights, source, grid = case(1, 3, 2, (4, 3), (3, 5))
    torch.library.opcheck(torch.ops.crispseg.sampled_dot, (query, source, grid))
    torch.library.opcheck(torch.ops.crispseg.sampled_sum, (weights, source, grid))


def test_bfloat16_features_are_sampled_in_float32() -> None:
    query, weights, source, grid = (tensor.detach() for tensor in case(1, 8, 4, (6, 6), (6, 6)))
    low = [tensor.to(torch.bfloat16) for tensor in (query, weights, source)]
    dot = sampled_dot(low[0], low[2], grid.float())
    assert dot.dtype == torch.float32
    torch.testing.assert_close(dot, naive_dot(low[0].float(), low[2].float(), grid.float()))
    total = sampled_sum(low[1], low[2], grid.float())
    assert total.dtype == torch.bfloat16
    torch.testing.assert_close(total, naive_sum(low[1].float(), low[2].float(), grid.float()).to(torch.bfloat16))
