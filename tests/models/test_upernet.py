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
        taps = self.taps | {f"decoder.fuses.{step}.offset": (18, 4 << step) for step in (0, 1)}
        self.check_option(tmp_path, taps=taps, fuse="dcn", fuse_levels=[3, 4])
