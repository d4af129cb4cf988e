"""FPN, UPerNet, DeepLabV3+ and FCN, in which the papers' parts are placed or with which they are compared."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from crispseg import record

from .base import ModelTester, check_saved


class TestFPN(ModelTester):
    name = "fpn"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}


class TestUPerNet(ModelTester):
    name = "upernet"
    taps: ClassVar = {"decoder.coarsest": (16, 32), "decoder.context.pooled": (64, 32)}


class TestDeepLabV3Plus(ModelTester):
    name = "deeplabv3plus"
    auxiliary_maps = 1
    taps: ClassVar = {"decoder.coarsest": (16, 16)}

    def test_output_stride_8_and_another_fuse_part(self, tmp_path: Path) -> None:
        """DDSM, Table 1, "+DCN"."""
        seen = self.check_option(tmp_path, output_stride=8, fuse="dcn")
        assert seen["decoder.coarsest"].shape[-2:] == (9, 13) and "decoder.fuse.offset" in seen

    def test_rates_double_at_output_stride_8(self) -> None:
        for output_stride, rates in ((16, {6, 12, 18}), (8, {12, 24, 36})):
            context = self.build(output_stride=output_stride).decoder.context
            dilated = {module.dilation[0] for module in context.modules() if isinstance(module, nn.Conv2d)}
            assert dilated == {1, *rates}


class TestFCN(ModelTester):
    name = "fcn"
    stride = 32
    auxiliary_maps = 0
    taps: ClassVar = {"decoder.coarsest": (16, 32)}

    @pytest.mark.parametrize(("context", "fusion", "output_stride"), [("crisscross", False, 16), ("apnb", True, 8)])
    def test_dilated_with_context(self, context: str, fusion: bool, output_stride: int, tmp_path: Path) -> None:
        """CCNet and ANL."""
        model = self.build(context=context, output_stride=output_stride, fusion=fusion).eval()
        check_saved(model, torch.randn(1, 3, 47, 70), tmp_path)
        with record(model) as seen:
            model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
        assert seen["decoder.coarsest"].shape[-1] == 64 // output_stride
        assert all(parameter.grad is not None for parameter in model.parameters())
