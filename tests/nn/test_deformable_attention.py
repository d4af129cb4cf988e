"""Deformable attention against that of Hugging Face transformers, and the module against a naive evaluation."""

import itertools
import math
from typing import Any

import pytest
import torch
from reference import sampled
from torch import Tensor

from crispseg import record
from crispseg.nn import DeformableAttention, deformable_attention, pixel_centres, sampling

from .test_sampling import rows

SIZES = ((7, 6), (4, 3), (1, 5))


def naive(levels: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Eq. 6, head by head and level by level."""
    batch, queries, heads = locations.shape[:3]
    out = torch.zeros(batch, heads, levels[0].shape[2], queries, dtype=torch.float64)
    for b, m, (index, level) in itertools.product(range(batch), range(heads), enumerate(levels)):
        height, width = level.shape[-2:]
        x, y = locations[b, :, m, index].double().unbind(-1)  # (Q, N) each
        out[b, m] += (sampled(level[b, m], x * width - 0.5, y * height - 0.5) * weights[b, :, m, index]).sum(-1)
    return out.flatten(1, 2).mT


def hugging_face(levels: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    value = torch.cat([level.flatten(3).permute(0, 3, 1, 2) for level in levels], dim=1)  # (B, S, M, d)
    sizes = [tuple(level.shape[-2:]) for level in levels]
    attend = module.MultiScaleDeformableAttention()
    return attend(value, torch.tensor(sizes), sizes, torch.tensor([0]), locations, weights, 64)


@pytest.mark.parametrize("in_strips", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_those_of_hugging_face(
    dtype: torch.dtype, in_strips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_strips:
        monkeypatch.setattr(sampling, "_strips", rows)
    levels = [torch.randn(2, 2, 3, *size, dtype=dtype) for size in SIZES]  # of two images and two heads
    locations = 1.4 * torch.rand(2, 9, 2, 3, 4, 2, dtype=dtype) - 0.2  # of nine queries and four points, some outside
    weights = torch.rand(2, 9, 2, 3 * 4, dtype=dtype).softmax(-1).unflatten(-1, (3, 4))
    case = [tensor.requires_grad_() for tensor in (*levels, locations, weights)]
    ours, theirs = (way(case[:3], *case[3:]) for way in (deformable_attention, hugging_face))
    assert ours.shape == (2, 9, 6)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    direction = torch.randn_like(theirs)
    pairs = zip(*(torch.autograd.grad(output, case, direction) for output in (ours, theirs)), strict=True)
    for gradient, wanted in pairs:
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)


def test_no_copy_of_the_values_for_each_point_is_made() -> None:
    """The largest tensor of forward and backward is far smaller than one level's samples at all points."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    queries, heads, channels, points = 3000, 2, 32, 64
    level = torch.randn(1, heads, channels, 12, 12, requires_grad=True)
    locations = torch.rand(1, queries, heads, 1, points, 2, requires_grad=True)
    weights = torch.rand(1, queries, heads, 1, points, requires_grad=True)
    with Largest():
        total = deformable_attention([level], locations, weights)
        total.sum().backward()
    assert 2 * queries * heads * points <= largest < queries * heads * points * channels


def lively(channels: int = 16, heads: int = 4, levels: int = 3, points: int = 2) -> DeformableAttention:
    """With offsets and weights that depend on the query."""
    part = DeformableAttention(channels, heads, levels, points)
    for layer in (part.sampling_offsets, part.attention_weights):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return part


def test_module_is_eqs_3_and_4() -> None:
    """Positions are c_q + Δ in pixels of each level; weights are a softmax over all levels and points."""
    part = lively().double()
    query, values = torch.randn(1, 42, 16).double(), torch.randn(1, 59, 16).double()
    centres = pixel_centres(SIZES[0])
    with record(part) as seen:
        out = part(query, centres, values, SIZES)
    offsets = (query @ part.sampling_offsets.weight.T + part.sampling_offsets.bias).view(1, 42, 4, 3, 2, 2)
    for index, (height, width) in enumerate(SIZES):
        for q in (0, 8, 41):
            c_q = torch.tensor([(q % 6 + 0.5) / 6, (q // 6 + 0.5) / 7]).double()
            moved = c_q + offsets[0, q, :, index] / torch.tensor([width, height])
            torch.testing.assert_close(seen["locations"][0, q, :, index], moved, atol=1e-6, rtol=0)
    scores = query @ part.attention_weights.weight.T + part.attention_weights.bias
    weights = scores.view(1, 42, 4, 6).softmax(-1).view(1, 42, 4, 3, 2)
    torch.testing.assert_close(seen["weights"], weights)
    projected = (values @ part.value_proj.weight.T + part.value_proj.bias).split([42, 12, 5], dim=1)
    levels = [
        torch.stack(value.chunk(4, dim=2), dim=1).mT.unflatten(3, size)
        for value, size in zip(projected, SIZES, strict=True)
    ]
    expected = naive(levels, seen["locations"], weights) @ part.output_proj.weight.T + part.output_proj.bias
    torch.testing.assert_close(out, expected)


def test_heads_look_around_at_first() -> None:
    """Deformable DETR, §A.4: head m in its own direction, point n at n pixels of every level."""
    part = DeformableAttention(32, 8, 2, 3)
    with record(part) as seen:
        part(torch.randn(1, 1, 32), torch.tensor([[0.5, 0.5]]), torch.randn(1, 100 + 25, 32), [(10, 10), (5, 5)])
    pixels = (seen["locations"][0, 0] - 0.5) * torch.tensor([10.0, 5.0])[:, None, None]
    torch.testing.assert_close(pixels[2, :, :, 1], torch.tensor([[1.0, 2, 3]] * 2))  # downwards
    torch.testing.assert_close(pixels[3, 0, 1], torch.tensor([-2.0, 2.0]))
    assert torch.allclose(seen["weights"], torch.tensor(1 / 6))
    for layer in (part.value_proj, part.output_proj):
        assert not layer.bias.any()
        assert layer.weight.detach().abs().max() == pytest.approx(math.sqrt(3 / 32), rel=0.05)  # Glorot's uniform range


def test_coordinates_stay_float32_under_bfloat16() -> None:
    part = lively(points=16)
    query, values, centres = torch.randn(1, 42, 16), torch.randn(1, 59, 16), pixel_centres(SIZES[0])
    with record(part) as seen:
        part(query, centres, values, SIZES)
    exact = seen["locations"]
    with record(part) as seen, torch.autocast("cpu", torch.bfloat16):
        out = part(query, centres, values, SIZES)
    assert out.dtype == torch.bfloat16
    assert seen["locations"].dtype == torch.float32
    pixels = (seen["locations"] - exact) * torch.tensor([[w, h] for h, w in SIZES])[:, None]
    assert 0 < pixels.abs().max() < 0.05, "an offset of 16 pixels in bfloat16 would be off by 1/16"
    out.float().sum().backward()
    assert all(parameter.grad is not None for parameter in part.parameters())
