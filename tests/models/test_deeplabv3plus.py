from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn

from .base import ModelTester


class TestDeepLabV3Plus(ModelTester):
    name = "deeplabv3plus"
    auxiliary_maps = 1
    taps: ClassVar = {"decoder.coarsest": (16, 16)}
    single_value_norms = frozenset({"decoder.context.image.2"})

    def test_output_stride_8(self, tmp_path: Path) -> None:
        self.check_option(tmp_path, taps={"decoder.coarsest": (16, 8)}, output_stride=8)

    def test_rates_double_at_output_stride_8(self) -> None:
        for output_stride, rates in ((16, {6, 12, 18}), (8, {12, 24, 36})):
            context = self.build(output_stride=output_stride).decoder.context
            dilated = {module.dilation[0] for module in context.modules() if isinstance(module, nn.Conv2d)}
            assert dilated == {1, *rates}

    @pytest.mark.parametrize(
        ("fuse", "seen"),
        [
            ("add", {}),
            ("fam", {"fine": (16, 4), "coarse": (16, 16), "flow": (2, 4), "warped": (16, 4)}),
            ("dcn", {"offset": (18, 4), "fused": (16, 4)}),  # DDSM, Table 1, "+DCN"
        ],
    )
    def test_other_fuse_parts(self, fuse: str, seen: dict[str, tuple[int, int]], tmp_path: Path) -> None:
        taps = self.taps | {f"decoder.fuse.{tap}": shape for tap, shape in seen.items()}
        self.check_option(tmp_path, taps=taps, fuse=fuse)
