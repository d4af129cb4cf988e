"""Plain parts of a decoder against formulations of their own, with plain loops in float64."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import conv_norm_relu, convolved, enlarged, lively, normalized
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from crispseg import contexts
from crispseg.decoders.context import (
    AsymmetricFusionNonLocal,
    AsymmetricPyramidNonLocal,
    AtrousSpatialPyramidPooling,
    CrissCrossAttention,
    DenseASPP,
    NonLocal,
    RecurrentCrissCross,
)
from crispseg.decoders.fuse import DeformableFuse, UpsampleAdd

PARTS = ["apnb", "aspp", "conv", "crisscross", "denseaspp", "linear", "nonlocal", "ppm"]


def test_nonlocal_is_the_paper_s_sum_over_all_positions() -> None:
    module = lively(NonLocal(6, 4))
    feature = torch.randn(1, 6, 3, 5, dtype=torch.float64)
    points = [feature[0, :, y, x] for y, x in itertools.product(range(3), range(5))]
    values, attended = [embedded(module.g, point) for point in points], []
    for point in points:
        affinities = [embedded(module.theta, point) @ embedded(module.phi, other) for other in points]
        attended.append(weighted_mean(affinities, values))
    y = torch.stack(attended, dim=1).unflatten(1, (3, 5))
    z = feature[0] + normalized(convolved(y, module.w_z[0].weight), module.w_z[1])
    level, context = module(feature)
    torch.testing.assert_close(level[0], conv_norm_relu(z, module.conv), atol=1e-5, rtol=0)
    assert context.descriptors == ()


def test_nonlocal_does_not_hold_all_affinities() -> None:
    """Under autograd, what is kept grows with the number of positions, not with its square."""
    module = NonLocal(4, 4)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.randn(1, 4, 32, 32))
    assert max(sizes) <= 4 * 32 * 32


def embedded(conv: nn.Conv2d, point: Tensor) -> Tensor:
    """A 1×1 convolution of one pixel `(C,)`."""
    return conv.weight[:, :, 0, 0] @ point + conv.bias


def weighted_mean(affinities: list[Tensor], values: list[Tensor]) -> Tensor:
    powers = [affinity.exp() for affinity in affinities]
    return sum((power * value for power, value in zip(powers, values, strict=True)), torch.zeros(())) / sum(powers)


def crossed(x: Tensor, part: CrissCrossAttention) -> Tensor:
    """CCNet's Eqs. 1 and 2, pixel by pixel, for `(C, H, W)`."""
    height, width = x.shape[1:]
    out = x.clone()
    for y, column in itertools.product(range(height), range(width)):
        seen = [(y, at) for at in range(width)] + [(row, column) for row in range(height) if row != y]
        query = embedded(part.query, x[:, y, column])
        affinities = [query @ embedded(part.key, x[:, row, at]) for row, at in seen]
        values = [embedded(part.value, x[:, row, at]) for row, at in seen]
        out[:, y, column] = x[:, y, column] + part.gamma * weighted_mean(affinities, values)
    return out


def test_crisscross_attends_to_row_and_column_twice() -> None:
    module = lively(RecurrentCrissCross(3, 8))
    nn.init.constant_(module.attention.gamma, 0.7)
    feature = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    twice = crossed(crossed(conv_norm_relu(feature[0], module.reduce), module.attention), module.attention)
    joined = torch.cat([feature[0], conv_norm_relu(twice, module.conv)])
    torch.testing.assert_close(module(feature)[0][0], conv_norm_relu(joined, module.join), atol=1e-5, rtol=0)


def test_apnb_attends_to_averages_over_bins() -> None:
    module = lively(AsymmetricPyramidNonLocal(3, 4))
    feature = torch.randn(1, 3, 9, 10, dtype=torch.float64)
    x = conv_norm_relu(feature[0], module.reduce)
    bins = torch.cat([F.adaptive_avg_pool2d(x, size).flatten(1) for size in (1, 3, 6, 8)], dim=1).unbind(1)
    assert len(bins) == 110
    keys, values = ([embedded(conv, point) for point in bins] for conv in (module.phi, module.g))
    attended = [
        embedded(module.output, weighted_mean([embedded(module.theta, point) @ key for key in keys], values))
        for point in x.flatten(1).unbind(1)
    ]
    joined = torch.cat([torch.stack(attended, dim=1).unflatten(1, (9, 10)), x])
    torch.testing.assert_close(module(feature)[0][0], conv_norm_relu(joined, module.join), atol=1e-5, rtol=0)


def test_fusion_attends_to_averages_of_the_stage_before() -> None:
    module = lively(AsymmetricFusionNonLocal(3, 8))
    stage, deepest = torch.randn(3, 9, 10, dtype=torch.float64), torch.randn(8, 5, 5, dtype=torch.float64)
    bins = torch.cat([F.adaptive_avg_pool2d(stage, size).flatten(1) for size in (1, 3, 6, 8)], dim=1).unbind(1)
    keys, values = ([embedded(conv, point) for point in bins] for conv in (module.phi, module.g))
    attended = [
        embedded(module.output, weighted_mean([embedded(module.theta, point) @ key for key in keys], values))
        for point in deepest.flatten(1).unbind(1)
    ]
    joined = torch.cat([torch.stack(attended, dim=1).unflatten(1, (5, 5)), deepest])
    result = module(stage[None], deepest[None])[0]
    torch.testing.assert_close(result, conv_norm_relu(joined, module.join), atol=1e-5, rtol=0)


def test_aspp_is_four_convolutions_and_a_mean() -> None:
    module = lively(AtrousSpatialPyramidPooling(4, 3))
    assert [branch[0].dilation[0] for branch in module.branches[1:]] == [6, 12, 18]
    feature = torch.randn(1, 4, 20, 14, dtype=torch.float64)
    x = feature[0]
    branches = [conv_norm_relu(x, branch, rate) for branch, rate in zip(module.branches, (1, 6, 12, 18), strict=True)]
    mean = torch.stack([x[:, y, x_] for y, x_ in itertools.product(range(20), range(14))]).mean(0)[:, None, None]
    image = conv_norm_relu(mean, module.image[1:]).expand(-1, 20, 14)
    expected = conv_norm_relu(torch.cat([*branches, image]), module.join)
    torch.testing.assert_close(module(feature)[0][0], expected, atol=1e-5, rtol=0)


def test_denseaspp_sees_all_that_came_before() -> None:
    module = lively(DenseASPP(8, 3))
    assert module.rates == (3, 6, 12, 18, 24)
    feature = torch.randn(1, 8, 26, 9, dtype=torch.float64)
    x = feature[0]
    for layer, rate in zip(module.layers, (3, 6, 12, 18, 24), strict=True):
        norm1, _, reduce, norm2, _, dilated = layer
        assert (reduce.out_channels, dilated.out_channels) == (4, 1)  # C / 2 and C / 8
        reduced = convolved(normalized(x, norm1).clamp(min=0), reduce.weight)
        x = torch.cat([x, convolved(normalized(reduced, norm2).clamp(min=0), dilated.weight, rate)])
    torch.testing.assert_close(module(feature)[0][0], conv_norm_relu(x, module.join), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PARTS)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), channels=st.sampled_from([1, 6, 8]))
@settings(max_examples=8)
def test_contexts_work_on_any_feature_of_a_single_image(name: str, size: tuple[int, int], channels: int) -> None:
    module: Any = contexts[name](channels, 4)
    feature = torch.randn(1, channels, *size, requires_grad=True)
    for mode in (True, False):
        level, _ = module.train(mode)(feature)
        assert level.shape == (1, 4, *size)
        assert level.isfinite().all()
    level.sum().backward()
    assert feature.grad.isfinite().all()


@pytest.mark.parametrize("coarse_channels", [3, 5])
def test_addition_is_of_the_upsampled_level(coarse_channels: int) -> None:
    module: Any = UpsampleAdd(3, coarse_channels).double()
    fine, coarse = (torch.randn(1, n, *size).double() for n, size in ((3, (9, 12)), (coarse_channels, (5, 6))))
    projected = module.project(coarse)[0]
    torch.testing.assert_close(module(fine, coarse)[0], fine[0] + enlarged(projected, 9, 12), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.05), (torch.float64, 1e-12)])
def test_deformable_convolution_is_torchvision_s_in_any_precision(dtype: torch.dtype, error: float) -> None:
    module = DeformableFuse(4, 4).double()
    nn.init.normal_(module.predict_offset.weight, std=0.3)
    for parameter in module.parameters():  # values that bfloat16 holds exactly
        parameter.data = parameter.data.bfloat16().double()
    fine, coarse = (torch.randn(1, 4, *size).bfloat16().double() for size in ((9, 7), (9, 7)))
    both = torch.cat([coarse, fine], 1)
    assert module.predict_offset(both).abs().max() > 1
    expected = deform_conv2d(both, module.predict_offset(both), module.deform.weight, padding=1)
    fused = module.to(dtype)(fine.to(dtype), coarse.to(dtype))
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.double(), expected, atol=error, rtol=0)
    fused.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in module.parameters())
