from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from crispseg import create_model
from crispseg.models import GatedDualFlowAlignment
from crispseg.models.sfnet_lite import DirectDecoder

from .base import ModelTester

TINY: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8}
TAPS = {"fine": 16, "flow": 2, "fine_flow": 2, "warped": 16, "fine_warped": 16, "gate": 1}


class TestSFNetLite(ModelTester):
    name = "sfnet_lite"
    auxiliary_maps = 1
    taps: ClassVar = {
        "decoder.coarsest": (16, 32),
        "decoder.fuse.coarse": (16, 32),
        **{f"decoder.fuse.{tap}": (channels, 4) for tap, channels in TAPS.items()},
    }


def test_levels_may_have_different_numbers_of_channels() -> None:
    part = GatedDualFlowAlignment(8, 12)
    assert part(torch.randn(1, 8, 9, 12), torch.randn(1, 12, 5, 6)).shape == (1, 8, 9, 12)


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "features"},
        {"fuse": "fam", "fuse_options": {"flow_kernel": 5}, "merge": "aligned"},
        {"fuse": "add", "context": "conv"},
    ],
)
def test_other_parts_work_in_its_decoder(options: dict[str, Any]) -> None:
    model = create_model("sfnet_lite", **TINY, **options, refine="boundary", auxiliary=True).eval()
    assert isinstance(model.decoder, DirectDecoder)
    outputs = model.outputs(torch.randn(1, 3, 33, 57))
    assert [each.shape for each in (outputs.logits, *(outputs.auxiliary or ()))] == [(1, 3, 33, 57)] * 2


def test_its_levels_have_strides_4_16_and_32() -> None:
    for backbone, width in (("df1", 128), ("resnet50", 256), ("stdc1", 128)):
        with torch.device("meta"):
            model = create_model("sfnet_lite", num_classes=3, backbone=backbone)
        assert (model.backbone.strides, model.info.options["width"]) == ((4, 16, 32), width)
