"""Every row of SFNet's Tables 1 and 2 as an option of `sfnet`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from reference import sampled
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from crispseg import create_model, record
from crispseg.benchmarking.cost import count_multiply_adds
from crispseg.cli.main import main
from crispseg.decoders import DeformableFuse, UpsampleAdd
from crispseg.models import FlowAlignment
from crispseg.models.registry import model_options
from crispseg.models.sfnet import AlignedConcat, correlate, warp

from .test_sfnet import TestSFNet as Base

STRIDES = (4, 8, 16)  # of the finer level of the steps F3 → F2, F4 → F3, F5 → F4
FLOW = {"fine": 16, "coarse": 16, "flow": 2, "warped": 16}
DCN = {"offset": 18, "fused": 16}
TINY = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8}


def taps(*steps: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What `record` sees: names and channels of each step's taps, the finest step first."""
    return {"decoder.coarsest": (16, 32)} | {
        f"decoder.fuses.{index}.{tap}": (channels, 2 * stride if tap == "coarse" else stride)
        for index, (step, stride) in enumerate(zip(steps, STRIDES, strict=True))
        for tap, channels in step.items()
    }


ROWS: dict[str, tuple[dict[str, Any], dict[str, tuple[int, int]]]] = {
    "1a FPN": ({"context": "conv", "fuse": "add"}, taps({}, {}, {})),
    "1a FAM": ({"context": "conv"}, taps(FLOW, FLOW, FLOW)),
    "1a FPN + PPM": ({"fuse": "add"}, taps({}, {}, {})),
    "1b F3": ({"fuse_levels": [3]}, taps(FLOW, {}, {})),
    "1b F4": ({"fuse_levels": [4]}, taps({}, FLOW, {})),
    "1b F5": ({"fuse_levels": [5]}, taps({}, {}, FLOW)),
    "1b F4 and F5": ({"fuse_levels": [5, 4]}, taps({}, FLOW, FLOW)),
    "1c ASPP": ({"context": "aspp"}, taps(FLOW, FLOW, FLOW)),
    "1c DenseASPP": ({"context": "denseaspp"}, taps(FLOW, FLOW, FLOW)),
    "2a nearest": ({"flow_upsampling": "nearest"}, taps(FLOW, FLOW, FLOW)),
    "2a deconvolution": ({"flow_upsampling": "deconvolution"}, taps(FLOW, FLOW, FLOW)),
    "2b k=1": ({"flow_kernel": 1}, taps(FLOW, FLOW, FLOW)),
    "2b k=5": ({"flow_kernel": 5}, taps(FLOW, FLOW, FLOW)),
    "2b k=7": ({"flow_kernel": 7}, taps(FLOW, FLOW, FLOW)),
    "2c": (
        {"flow_net": "correlation", "fuse_levels": [5]},
        taps({}, {}, {"correlation": 81, **FLOW}),
    ),
    "2c, a reach of 2": (
        {"flow_net": "correlation", "flow_reach": 2, "fuse_levels": [5], "flow_coordinates": "paper"},
        taps({}, {}, {"correlation": 25, **FLOW}),
    ),
    "2d F5": ({"fuse": "dcn", "fuse_levels": [5]}, taps({}, {}, DCN)),
    "2d": ({"fuse": "dcn"}, taps(DCN, DCN, DCN)),
    "3.3": (
        {"merge": "aligned"},
        taps(FLOW, FLOW, FLOW)
        | {
            f"decoder.merge.fams.{i}.{tap}": (channels, 8 << i if tap == "coarse" else 4)
            for i in range(3)
            for tap, channels in FLOW.items()
        },
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_works(row: str, tmp_path: Path) -> None:
    options, seen = ROWS[row]
    Base().check_option(tmp_path, **options, taps=seen)


def test_the_non_local_row_starts_as_the_identity(tmp_path: Path) -> None:
    behind = {"theta.weight", "theta.bias", "phi.weight", "phi.bias", "g.weight", "g.bias", "w_z.0.weight"}
    Base().check_option(
        tmp_path, context="nonlocal", zero_gradients=frozenset(f"decoder.context.{name}" for name in behind)
    )


def light(*strides: int) -> dict[str, tuple[int, int]]:
    """What `record` sees of a decoder whose levels have these strides."""
    return {"decoder.coarsest": (16, strides[-1])} | {
        f"decoder.fuses.{index}.{tap}": (channels, coarse if tap == "coarse" else fine)
        for index, (fine, coarse) in enumerate(pairwise(strides))
        for tap, channels in FLOW.items()
    }


@pytest.mark.parametrize(
    ("backbone", "seen"),
    [("df1", light(16, 32, 32)), ("df2", light(8, 16, 32)), ("shufflenetv2_x1_0", light(4, 8, 16, 32))],
)
def test_every_light_backbone_works(backbone: str, seen: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    """Table 1d."""
    Base().check_option(tmp_path, backbone=backbone, taps=seen)


# Options that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [[], [2], [3, 3], [3, 4, 5, 6]])
def test_fuse_levels_are_levels_that_are_there(levels: list[int], refuses: Any) -> None:
    with refuses(f"fuse_levels is {levels}", "one or more of 3, 4, 5, each once"):
        create_model("sfnet", **TINY, fuse_levels=levels)


def test_df_has_two_steps(refuses: Any) -> None:
    df1 = {"num_classes": 3, "backbone": "df1", "width": 8}
    assert create_model("sfnet", **df1).info.options["fuse_levels"] == [4, 5]
    assert create_model("sfnet", **df1, fuse="add").info.options["fuse_levels"] == [4, 5]
    model = create_model("sfnet", **df1, fuse_levels=[4])
    assert [type(fuse) for fuse in model.decoder.fuses] == [FlowAlignment, UpsampleAdd]
    for levels in ([3, 4], [3, 4, 5]):
        with refuses(f"fuse_levels is {levels}", "more of 4, 5,"):
            create_model("sfnet", **df1, fuse_levels=levels)


def test_addition_has_no_levels(refuses: Any) -> None:
    with refuses("fuse is add", "fuse_levels=[5]", "fuse=fam"):
        create_model("sfnet", **TINY, fuse="add", fuse_levels=[5])


@pytest.mark.parametrize("option", [{"flow_upsampling": "nearest"}, {"flow_kernel": 5}, {"flow_net": "correlation"}])
def test_there_is_no_flow_without_a_fam(option: dict[str, Any], refuses: Any) -> None:
    with refuses("dcn", *option):
        create_model("sfnet", **TINY, fuse="dcn", **option)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("flow_kernel", (4, "3")),
        ("flow_upsampling", ("bicubic",)),
        ("flow_net", ([],)),
        ("fuse_levels", (5, (3, 4), ["5"], [True])),
        ("width", (True, "8")),
        ("context", (None,)),
        ("released_dilation", (1,)),
    ],
)
def test_options_of_a_wrong_type_are_refused(option: str, values: tuple[Any, ...], refuses: Any) -> None:
    for value in values:
        with refuses(option, repr(value)):
            create_model("sfnet", **{**TINY, option: value})


# Command line -------------------------------------------------------------------------------------------------------


def test_the_command_line_takes_every_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"flow_kernel": "5", "flow_net": "correlation", "flow_upsampling": "nearest", "fuse_levels": "[4, 5]"}
    flags |= {"context": "aspp", "merge": "aligned"}
    argv = [token for key, value in flags.items() for token in (f"--model.{key}", value)]
    assert _settings(argv, capsys) == {**flags, "flow_kernel": 5, "fuse_levels": [4, 5]}
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump({"model": {"name": "sfnet", **_settings(argv, capsys)}}))
    assert _settings([str(file)], capsys) == {**flags, "flow_kernel": 5, "fuse_levels": [4, 5]}


def _settings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The options that `--print_config` shows for these flags, without the defaults."""
    assert main(["train", *argv, "--data.root=photos", "--model=sfnet", "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["model"]
    defaults = {key: option.default for key, option in model_options("sfnet").items() if key != "auxiliary"}
    return {key: shown[key] for key in defaults if shown[key] != defaults[key]}


# Tables 2(a) and 2(b): upsampling in the FAM, and the kernel of the flow ----------------------------------------------


def fam(width: int, **options: Any) -> FlowAlignment:
    """A FAM on two levels of this width."""
    model = create_model("sfnet", **{**TINY, "width": width}, **options)
    part: FlowAlignment = model.decoder.fuses[0]
    return part


@pytest.mark.parametrize("upsampling", ["nearest", "deconvolution"])
def test_upsampling_fits_any_pair_of_sizes(upsampling: str) -> None:
    module, fine = fam(4, flow_upsampling=upsampling), torch.randn(1, 4, 9, 7)
    for coarse_size in ((1, 1), (3, 4), (5, 3), (9, 12)):
        assert module(fine, torch.randn(1, 4, *coarse_size)).shape == fine.shape


def upsampled(module: FlowAlignment, low: Tensor, size: tuple[int, int]) -> Tensor:
    """What a FAM of width 2 makes of a compressed coarse level of one channel: here its flow to the right."""
    with torch.no_grad(), record(module) as seen:
        module.compress_coarse.weight.copy_(torch.tensor([[[[1.0]], [[0.0]]]]))
        module.predict_flow.weight.copy_(torch.tensor([[[[1.0]], [[0.0]]], [[[0.0]], [[0.0]]]]))
        module(torch.randn(1, 2, *size), low.expand(-1, 2, -1, -1))
    return seen["flow"][:, :1]


def test_nearest_takes_the_pixel_below_the_centre() -> None:
    low = torch.randn(1, 1, 3, 4)
    rows, columns = ([math.floor((i + 0.5) * n / size) for i in range(size)] for n, size in ((3, 7), (4, 6)))
    found = upsampled(fam(2, flow_upsampling="nearest", flow_kernel=1), low, (7, 6))
    assert torch.equal(found, low[..., rows, :][..., columns])


def test_deconvolution_doubles() -> None:
    module, low = fam(2, flow_upsampling="deconvolution", flow_kernel=1), torch.randn(1, 1, 3, 4)
    kernel = module.enlarge.weight  # (1, 1, 4, 4)
    expected = torch.zeros(1, 1, 6, 8)
    for y, x, dy, dx in itertools.product(range(3), range(4), range(4), range(4)):
        if 0 <= 2 * y + dy - 1 < 6 and 0 <= 2 * x + dx - 1 < 8:
            expected[0, 0, 2 * y + dy - 1, 2 * x + dx - 1] += low[0, 0, y, x] * kernel[0, 0, dy, dx].detach()
    torch.testing.assert_close(upsampled(module, low, (6, 8)), expected, atol=1e-6, rtol=0)


# Table 2(c): correlation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0, 1, 4])
def test_correlation_is_the_mean_product_with_the_displaced_map(reach: int) -> None:
    fine, coarse = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    displacements = range(-reach, reach + 1)
    for n in range(2):
        displaced = [
            sampled(coarse[n], *torch.broadcast_tensors(torch.arange(5) + x, torch.arange(4)[:, None] + y))
            for y, x in itertools.product(displacements, displacements)
        ]
        expected = torch.stack([(fine[n] * each).mean(0) for each in displaced])
        torch.testing.assert_close(correlate(fine, coarse, reach)[n].double(), expected, atol=1e-5, rtol=0)


# Table 2(d): deformable convolution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse_channels", [3, 5])
def test_deformable_convolution_is_the_sum_over_displaced_points(coarse_channels: int) -> None:
    module = DeformableFuse(3, coarse_channels)
    nn.init.normal_(module.predict_offset.weight, std=0.3)  # offsets of pixels
    fine, coarse = torch.randn(1, 3, 6, 5), torch.randn(1, coarse_channels, 3, 3)
    with torch.no_grad(), record(module) as seen:
        out = module(fine, coarse)
    upsampled = nn.functional.interpolate(coarse, size=(6, 5), mode="bilinear", align_corners=True)
    both = torch.cat([upsampled, fine], dim=1).double()
    offset = nn.functional.conv2d(both, module.predict_offset.weight.double(), padding=1)
    torch.testing.assert_close(seen["offset"].double(), offset, atol=1e-5, rtol=0)
    assert offset.abs().max() > 1
    dy, dx = seen["offset"][0].double().unflatten(0, (9, 2)).unbind(1)  # (9, H, W) each
    tap = torch.arange(9)[:, None, None]
    points = sampled(both[0], torch.arange(5) + tap % 3 - 1 + dx, torch.arange(6)[:, None] + tap // 3 - 1 + dy)
    expected = torch.einsum("oct,cthw->ohw", module.deform.weight.detach().double().flatten(2), points)
    torch.testing.assert_close(out[0].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.05), (torch.float64, 1e-12)])
def test_deformable_convolution_works_in_any_precision(dtype: torch.dtype, error: float) -> None:
    module = DeformableFuse(4, 4).double()
    nn.init.normal_(module.predict_offset.weight, std=0.3)
    for parameter in module.parameters():  # values that bfloat16 holds exactly
        parameter.data = parameter.data.bfloat16().double()
    fine, coarse = (torch.randn(1, 4, *size).bfloat16().double() for size in ((9, 7), (9, 7)))
    both = torch.cat([coarse, fine], 1)
    expected = deform_conv2d(both, module.predict_offset(both), module.deform.weight, padding=1)
    fused = module.to(dtype)(fine.to(dtype), coarse.to(dtype))
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.double(), expected, atol=error, rtol=0)
    fused.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in module.parameters())


def test_deformable_convolution_counts_as_a_convolution() -> None:
    """Beside the one that predicts its offsets, both on a level of 16 × 24 and the two levels' 16 channels."""
    plain, deformable = ({"fuse_levels": [4], "fuse": fuse} for fuse in ("fam", "dcn"))
    flow = 16 * 24 * (9 * 8 * 2) + (16 * 24 + 8 * 12) * 8 * 4  # and the levels' compression, which it does not need
    models = [create_model("sfnet", **TINY, **options) for options in (plain, deformable)]
    counts = [count_multiply_adds(model, 128, 192) for model in models]
    assert counts[1] - counts[0] == 16 * 24 * 9 * 16 * (18 + 8) - flow


# §3.3: FAM in the final upsampling ----------------------------------------------------------------------------------


def test_aligned_levels_are_warped_to_the_finest_and_concatenated() -> None:
    merge = AlignedConcat(3, 4, 6).eval()
    levels = [torch.randn(1, 4, 9, 12), torch.randn(1, 4, 5, 6), torch.randn(1, 4, 3, 3)]
    with torch.no_grad(), record(merge) as seen:
        merged = merge(levels)
    warped = [warp(level, seen[f"fams.{index}.flow"]) for index, level in enumerate(levels[1:])]
    torch.testing.assert_close(merged, merge.conv(torch.cat([levels[0], *warped], 1)))
    assert merged.shape == (1, 6, 9, 12)
