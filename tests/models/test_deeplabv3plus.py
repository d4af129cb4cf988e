from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from .base import ModelTester


class TestDeepLabV3Plus(ModelTester):
    name = "deeplabv3plus"
    auxiliary_maps = 1
    taps: ClassVar = {"decoder.coarsest": (16, 16)}
    single_value_norms = frozenset({"decoder.context.image.2"})

    def test_a_backbone_with_one_value_per_channel_says_what_to_do(self, refuses: Any) -> None:
        """At output stride 16, the smallest image still leaves four values."""
        self.build().train()(torch.randn(1, 3, 32, 32)).sum().backward()

    def test_output_stride_8(self, tmp_path: Path) -> None:
        self.check_option(tmp_path, taps={"decoder.coarsest": (16, 8)}, output_stride=8)

    def test_rates_double_at_output_stride_8(self) -> None:
        for output_stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
            branches = self.build(output_stride=output_stride).decoder.context.branches
            assert [branch[0].dilation[0] for branch in branches[1:]] == rates

    def test_the_width_is_checked(self, refuses: Any) -> None:
        with refuses("width is 0", "at least 2"):
            self.build(width=0)

    def test_deformable_convolution(self, tmp_path: Path) -> None:
        """DDSM, Table 1, "+DCN"."""
        taps = self.taps | {"decoder.fuse.offset": (18, 4), "decoder.fuse.fused": (16, 4)}
        self.check_option(tmp_path, taps=taps, fuse="dcn")

    @pytest.mark.parametrize("fuse", ["add", "fam"])
    def test_other_fuse_parts(self, fuse: str, tmp_path: Path) -> None:
        flow = {"fine": (16, 4), "coarse": (16, 16), "flow": (2, 4), "warped": (16, 4)} if fuse == "fam" else {}
        taps = self.taps | {f"decoder.fuse.{tap}": shape for tap, shape in flow.items()}
        self.check_option(tmp_path, taps=taps, fuse=fuse)
