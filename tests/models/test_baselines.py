"""FPN, UPerNet, DeepLabV3+ and FCN, in which the papers' parts are placed or with which they are compared."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from crispseg import create_model, record
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters

from .base import ModelTester, check_saved


class TestFPN(ModelTester):
    name = "fpn"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}


def test_counts_are_those_of_agln_s_baseline() -> None:
    """Li et al., Tables IV and VIII."""
    with torch.device("meta"):  # nothing is computed
        model = create_model("fpn", num_classes=59, backbone="resnet101_deep")
    assert count_parameters(model) == pytest.approx(54.32e6, rel=0.005)
    assert count_multiply_adds(model, 480, 480) == pytest.approx(124.6e9, rel=0.025)


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize(
    ("fuse", "tap"), [("fam", "flow"), ("ddsm", "x_Sout"), ("cfb", "cfb.sdm.M"), ("dcn", "offset"), ("gdfam", "gate")]
)
def test_parts_of_other_systems_work_in_its_place(fuse: str, tap: str, merge: str) -> None:
    parts = {"context": "ppm", "fuse": fuse, "merge": merge}
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=16, **parts)
    with record(model) as seen:
        logits = model(torch.randn(2, 3, 33, 57))
    assert logits.shape == (2, 3, 33, 57)
    assert f"decoder.fuses.0.{tap}" in seen
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("backbone", "width", "giga"),
    [("tf_efficientnet_lite0", 64, 1.07), ("resnet18", 128, 4.55), ("resnet50", 256, 16.10)],
)
def test_the_width_fits_the_backbone(backbone: str, width: int, giga: float) -> None:
    model = create_model("fpn", num_classes=3, backbone=backbone)
    assert model.info.options["width"] == width
    assert count_multiply_adds(model, 192, 192) / 1e9 == pytest.approx(giga, abs=0.01)


class TestUPerNet(ModelTester):
    name = "upernet"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}

    def test_deformable_convolution(self, tmp_path: Path) -> None:
        """DDSM, Table 1, "+DCN"."""
        seen = self.check_option(tmp_path, fuse="dcn", fuse_levels=[3, 4])
        assert "decoder.fuses.1.offset" in seen and "decoder.fuses.2.offset" not in seen


class TestDeepLabV3Plus(ModelTester):
    name = "deeplabv3plus"
    auxiliary_maps = 1
    taps: ClassVar = {"decoder.coarsest": (16, 16)}

    def test_output_stride_8(self, tmp_path: Path) -> None:
        assert self.check_option(tmp_path, output_stride=8)["decoder.coarsest"].shape[-2:] == (9, 13)

    def test_rates_double_at_output_stride_8(self) -> None:
        for output_stride, rates in ((16, {6, 12, 18}), (8, {12, 24, 36})):
            context = self.build(output_stride=output_stride).decoder.context
            dilated = {module.dilation[0] for module in context.modules() if isinstance(module, nn.Conv2d)}
            assert dilated == {1, *rates}

    @pytest.mark.parametrize("fuse", ["add", "fam", "dcn"])  # the last is DDSM, Table 1, "+DCN"
    def test_other_fuse_parts(self, fuse: str, tmp_path: Path) -> None:
        self.check_option(tmp_path, fuse=fuse)


class TestFCN(ModelTester):
    name = "fcn"
    stride = 32
    auxiliary_maps = 0
    taps: ClassVar = {"decoder.coarsest": (16, 32)}

    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_dilated(self, output_stride: int, tmp_path: Path) -> None:
        seen = self.check_option(tmp_path, output_stride=output_stride)
        assert seen["decoder.coarsest"].shape[-1] == -(-97 // output_stride)

    @pytest.mark.parametrize(("context", "fusion"), [("crisscross", False), ("apnb", True), ("ppm", False)])
    def test_context_parts(self, context: str, fusion: bool, tmp_path: Path) -> None:
        """CCNet, ANL and PSPNet."""
        model = self.build(context=context, output_stride=8, fusion=fusion).eval()
        check_saved(model, torch.randn(1, 3, 47, 70), tmp_path)
        model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
