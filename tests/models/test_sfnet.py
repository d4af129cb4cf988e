from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sampled
from torch import Tensor, nn

from crispseg import create_model, record
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters
from crispseg.models import FlowAlignment, warp

from .base import ModelTester


class TestSFNet(ModelTester):
    name = "sfnet"
    taps: ClassVar = {"decoder.coarsest": (16, 32)} | {
        f"decoder.fuses.{level}.{tap}": (channels, 2 * stride if tap == "coarse" else stride)
        for level, stride in enumerate((4, 8, 16))
        for tap, channels in (("fine", 16), ("coarse", 16), ("flow", 2), ("warped", 16))
    }
    single_value_norms = frozenset({"decoder.context.stages.0.2"})  # the 1×1 bin of pyramid pooling


@pytest.mark.parametrize(
    ("backbone", "parameters", "least", "most"),
    [
        ("resnet18_deep", 12.87e6, 121e9, 124e9),
        ("resnet50_deep", 31.33e6, 330e9, 338e9),
        ("resnet101_deep", 50.32e6, 409e9, 418e9),
    ],
)
def test_counts_are_the_paper_s(backbone: str, parameters: float, least: float, most: float) -> None:
    with torch.device("meta"):  # nothing is computed
        model = create_model("sfnet", num_classes=19, backbone=backbone)
    assert count_parameters(model) == pytest.approx(parameters, rel=0.001)
    assert least <= count_multiply_adds(model, 1024, 1024) <= most


# Warping, Eqs. 2 and 3 ---------------------------------------------------------------------------------------------


def naive_warp(coarse: Tensor, flow: Tensor) -> Tensor:
    """Eqs. 2 and 3 in pixels: p_l = p (w - 1) / (W - 1) + Δ / 2 · (w - 1) / W; zero outside."""
    (h, w), (height, width) = coarse.shape[-2:], flow.shape[-2:]
    ys, xs = torch.arange(height)[:, None], torch.arange(width)
    out = []
    for x, (dx, dy) in zip(coarse, flow.double(), strict=True):
        px = xs * (w - 1) / max(width - 1, 1) + dx / 2 * (w - 1) / width
        py = ys * (h - 1) / max(height - 1, 1) + dy / 2 * (h - 1) / height
        out.append(sampled(x, px, py))
    return torch.stack(out)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.5, 4.0, 40.0]))
@settings(max_examples=40)
def test_warp_is_bilinear_sampling_at_the_moved_point(h: int, w: int, height: int, width: int, reach: float) -> None:
    torch.manual_seed(0)
    coarse, flow = torch.randn(2, 3, h, w), reach * torch.randn(2, 2, height, width)
    torch.testing.assert_close(warp(coarse, flow).double(), naive_warp(coarse, flow), atol=2e-4, rtol=0)


def test_literal_coordinates_are_equation_2() -> None:
    """p_l = (p_(l-1) + Δ) / 2."""
    coarse, flow = torch.randn(1, 2, 3, 4), 3 * torch.randn(1, 2, 6, 8)
    dx, dy = flow[0].double()
    expected = sampled(coarse[0], (torch.arange(8) + dx) / 2, (torch.arange(6)[:, None] + dy) / 2)
    torch.testing.assert_close(warp(coarse, flow, literal=True)[0].double(), expected, atol=1e-4, rtol=0)


def test_gradients_of_warp_are_the_slopes_of_a_ramp() -> None:
    h, w, height, width = 6, 10, 12, 20
    coarse = (3 * torch.arange(w) + 5 * torch.arange(h)[:, None]).float()[None, None].requires_grad_()
    flow = torch.full((1, 2, height, width), 0.1, requires_grad=True)
    warp(coarse, flow)[..., 1:-1, 1:-1].sum().backward()
    inside = flow.grad[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside[0], torch.full_like(inside[0], 3 / 2 * (w - 1) / width), atol=1e-3, rtol=0)
    torch.testing.assert_close(inside[1], torch.full_like(inside[1], 5 / 2 * (h - 1) / height), atol=1e-3, rtol=0)
    assert coarse.grad.sum().item() == pytest.approx((height - 2) * (width - 2), abs=1e-3)  # weights add up to one


@pytest.mark.parametrize("autocast", [False, True])
def test_coordinates_are_float32_when_all_else_is_bfloat16(autocast: bool) -> None:
    coarse = torch.arange(1024.0).expand(1, 1, 2, 1024)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        warped = warp(coarse, torch.zeros(1, 2, 2, 2048, dtype=torch.bfloat16))
    expected = torch.arange(2048) * (1023 / 2047)
    torch.testing.assert_close(warped[0, 0, 0], expected, atol=1e-2, rtol=0)  # bfloat16 would be wrong by pixels
    assert warp(coarse.bfloat16(), torch.zeros(1, 2, 2, 8)).dtype == torch.bfloat16


# Flow alignment module, Fig. 3a -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse_channels", [8, 12])
def test_flow_alignment_is_what_the_figure_shows(coarse_channels: int) -> None:
    module = FlowAlignment(8, coarse_channels)
    fine, coarse = torch.randn(2, 8, 9, 12), torch.randn(2, coarse_channels, 5, 6)
    nn.init.normal_(module.predict_flow.weight)  # flows of several pixels
    with torch.no_grad(), record(module) as seen:
        out = module(fine, coarse)
        if coarse_channels != 8:
            coarse = torch.einsum("nchw,dc->ndhw", coarse, module.project.weight[..., 0, 0])
        low = torch.einsum("nchw,dc->ndhw", coarse, module.compress_coarse.weight[..., 0, 0])
        high = torch.einsum("nchw,dc->ndhw", fine, module.compress_fine.weight[..., 0, 0])
        low = F.interpolate(low, size=(9, 12), mode="bilinear", align_corners=True)
        flow = F.conv2d(torch.cat([low, high], 1), module.predict_flow.weight, padding=1)
    torch.testing.assert_close(seen["flow"], flow, atol=1e-4, rtol=1e-4)
    assert flow.abs().max() > 2
    torch.testing.assert_close(seen["warped"].double(), naive_warp(coarse, flow), atol=1e-3, rtol=0)
    torch.testing.assert_close(out, fine + seen["warped"])
