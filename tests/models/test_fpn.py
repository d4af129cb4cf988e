from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from crispseg import create_model, record
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters

from .base import ModelTester


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
    ("fuse", "tap"), [("fam", "flow"), ("ddsm", "x_Sout"), ("cfb", "cfb.sdm.M"), ("dcn", "offset")]
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
