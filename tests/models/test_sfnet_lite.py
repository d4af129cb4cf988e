from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from reference import convolved
from torch import Tensor, nn

from crispseg import create_model, record
from crispseg.models import GatedDualFlowAlignment
from crispseg.models.sfnet_lite import DirectDecoder

from .base import ModelTester
from .test_sfnet import naive_warp

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


def naive_gated(part: GatedDualFlowAlignment, fine: Tensor, coarse: Tensor, gate: str) -> Tensor:
    """For each pixel: g(p) · coarse at the pixel moved by Δ_1 + (1 - g(p)) · fine at that moved by Δ_2."""
    fine, coarse = fine.double(), coarse.double()
    if isinstance(part.project, nn.Conv2d):
        coarse = convolved(coarse, part.project.weight.double())
    low = convolved(coarse, part.compress_coarse.weight.double())
    low = F.interpolate(low, size=fine.shape[-2:], mode="bilinear", align_corners=True)
    both = torch.cat([low, convolved(fine, part.compress_fine.weight.double())], 1)
    delta = convolved(both, part.predict_flow.weight.double())
    maps = naive_warp(coarse, delta[:, :2]), naive_warp(fine, delta[:, 2:])
    seen = both
    if gate == "pooled":
        rows = [low.sum(1) / low.shape[1], fine.sum(1) / fine.shape[1], low.sort(1)[0][:, -1], fine.sort(1)[0][:, -1]]
        seen = torch.stack(rows, 1)
    share = 1 / (1 + torch.exp(-convolved(seen, part.predict_gate.weight.double())))
    return share * maps[0] + (1 - share) * maps[1]


@pytest.mark.parametrize(("gate", "coarse_channels"), [("pooled", 8), ("pooled", 12), ("features", 8)])
@torch.no_grad()
def test_gated_dual_flow_is_what_its_equations_say(gate: Any, coarse_channels: int) -> None:
    part = GatedDualFlowAlignment(8, coarse_channels, gate=gate)
    nn.init.normal_(part.predict_flow.weight)  # flows of several pixels, and gates of all values
    nn.init.normal_(part.predict_gate.weight)
    fine, coarse = torch.randn(1, 8, 9, 12), torch.randn(1, coarse_channels, 5, 6)
    with record(part) as seen:
        out = part(fine, coarse)
    torch.testing.assert_close(out.double(), naive_gated(part, fine, coarse, gate), atol=1e-3, rtol=0)
    assert seen["flow"].abs().max() > 2 and seen["fine_flow"].abs().max() > 2
    assert seen["gate"].min() < 0.1 and seen["gate"].max() > 0.9


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
