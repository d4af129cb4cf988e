from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from .base import ModelTester


class TestUPerNet(ModelTester):
    name = "upernet"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}
    single_value_norms = frozenset({"decoder.context.stages.0.2"})

    def test_deformable_convolution(self, tmp_path: Path) -> None:
        """DDSM, Table 1, "+DCN"."""
        dcn = (("offset", 18), ("fused", 16))
        taps = self.taps | {
            f"decoder.fuses.{step}.{tap}": (channels, 4 << step) for step in (0, 1) for tap, channels in dcn
        }
        self.check_option(tmp_path, taps=taps, fuse="dcn", fuse_levels=[3, 4])
