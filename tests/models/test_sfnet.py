"""SFNet: equations, and every row of Tables 1 and 2 as an option; and SFNet-Lite."""

import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sampled
from torch import Tensor

from crispseg import create_model
from crispseg.decoders import UpsampleAdd
from crispseg.models import FlowAlignment
from crispseg.models.sfnet import correlate, warp

from .base import ModelTester


class TestSFNet(ModelTester):
    name = "sfnet"
    taps: ClassVar = {"decoder.coarsest": (16, 32), "decoder.context.pooled": (64, 32)} | {
        f"decoder.fuses.{level}.{tap}": (channels, 2 * stride if tap == "coarse" else stride)
        for level, stride in enumerate((4, 8, 16))
        for tap, channels in (("fine", 16), ("coarse", 16), ("flow", 2), ("warped", 16))
    }


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


@pytest.mark.parametrize("autocast", [False, True])
def test_coordinates_are_float32_when_all_else_is_bfloat16(autocast: bool) -> None:
    coarse = torch.arange(1024.0).expand(1, 1, 2, 1024)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        warped = warp(coarse, torch.zeros(1, 2, 2, 2048, dtype=torch.bfloat16))
    expected = torch.arange(2048) * (1023 / 2047)
    torch.testing.assert_close(warped[0, 0, 0], expected, atol=1e-2, rtol=0)  # bfloat16 would be wrong by pixels
    assert warp(coarse.bfloat16(), torch.zeros(1, 2, 2, 8)).dtype == torch.bfloat16


ROWS: dict[str, dict[str, Any]] = {
    "§3.2, two convolutions": {"flow_layers": 2, "align_corners": False},
    "1a FPN": {"context": "conv", "fuse": "add"},
    "1b F4 and F5, 1c ASPP": {"fuse_levels": [5, 4], "context": "aspp"},
    "1c DenseASPP, 2d F5": {"context": "denseaspp", "fuse": "dcn", "fuse_levels": [5]},
    "2a nearest, 2b k=1": {"flow_upsampling": "nearest", "flow_kernel": 1},
    "2a deconvolution, 3.3": {"flow_upsampling": "deconvolution", "merge": "aligned"},
    "2c": {"flow_net": "correlation", "fuse_levels": [5]},
    "2c, a reach of 2": {
        "flow_net": "correlation",
        "flow_reach": 2,
        "fuse_levels": [5],
        "flow_coordinates": "paper",
        "align_corners": True,
    },
    "1d df1": {"backbone": "df1"},
    "1d shufflenetv2_x1_0": {"backbone": "shufflenetv2_x1_0"},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_works(row: str, tmp_path: Path) -> None:
    seen = TestSFNet().check_option(tmp_path, **ROWS[row])
    levels = {int(key.split(".")[2]) for key in seen if key.startswith("decoder.fuses.")}
    assert levels == {level - 3 for level in ROWS[row].get("fuse_levels", ())} or "fuse_levels" not in ROWS[row]
    assert all(value.shape[1] == (81 if row == "2c" else 25) for key, value in seen.items() if "correlation" in key)


def test_the_non_local_row_starts_as_the_identity(tmp_path: Path) -> None:
    behind = {"theta.weight", "theta.bias", "phi.weight", "phi.bias", "g.weight", "g.bias", "w_z.0.weight"}
    TestSFNet().check_option(
        tmp_path, context="nonlocal", zero_gradients=frozenset(f"decoder.context.{name}" for name in behind)
    )


def test_df_has_two_steps() -> None:
    df1 = {"num_classes": 3, "backbone": "df1", "width": 8}
    assert create_model("sfnet", **df1).info.options["fuse_levels"] == [4, 5]
    assert create_model("sfnet", **df1, fuse="add").info.options["fuse_levels"] == [4, 5]
    model = create_model("sfnet", **df1, fuse_levels=[4])
    assert [type(fuse) for fuse in model.decoder.fuses] == [FlowAlignment, UpsampleAdd]


@pytest.mark.parametrize("reach", [0, 1, 4])
def test_correlation_is_the_mean_product_with_the_displaced_map(reach: int) -> None:
    fine, coarse = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    displacements = range(-reach, reach + 1)
    for n in range(2):
        displaced = [
            sampled(coarse[n], *torch.broadcast_tensors(torch.arange(5) + x, torch.arange(4)[:, None] + y))
            for y, x in itertools.product(displacements, displacements)
        ]
        expected = torch.stack([(fine[n] * feature).mean(0) for feature in displaced])
        torch.testing.assert_close(correlate(fine, coarse, reach)[n].double(), expected, atol=1e-5, rtol=0)


TINY: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8}
TAPS = {"fine": 16, "flow": 2, "fine_flow": 2, "warped": 16, "fine_warped": 16, "gate": 1}


class TestSFNetLite(ModelTester):
    name = "sfnet_lite"
    auxiliary_maps = 1
    taps: ClassVar = {
        "decoder.coarsest": (16, 32),
        "decoder.context.pooled": (64, 32),
        "decoder.fuse.coarse": (16, 32),
        **{f"decoder.fuse.{tap}": (channels, 4) for tap, channels in TAPS.items()},
    }


def test_its_levels_have_strides_4_16_and_32() -> None:
    for backbone, width in (("df1", 128), ("resnet50", 256), ("stdc1", 128)):
        with torch.device("meta"):
            model = create_model("sfnet_lite", num_classes=3, backbone=backbone)
        assert (model.backbone.strides, model.info.options["width"]) == ((4, 16, 32), width)
