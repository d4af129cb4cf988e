from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from crispseg import create_model, record
from crispseg.counting import count_multiply_adds, count_parameters

from .base import ModelTester


class TestFPN(ModelTester):
    name = "fpn"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}
    # All of FPN is in the graphs of TestUPerNet and TestRefinedFPN; tests/test_export.py exports it by the command.
    test_an_exported_file_computes_the_same_at_any_size = None


def test_counts_are_those_of_agln_s_baseline() -> None:
    """Li et al., Tables IV and VIII."""
    with torch.device("meta"):  # nothing is computed
        model = create_model("fpn", num_classes=59, backbone="resnet101_deep")
    assert count_parameters(model) == pytest.approx(54.32e6, rel=0.005)
    assert count_multiply_adds(model, 480, 480) == pytest.approx(124.6e9, rel=0.025)


def test_parts_of_other_systems_work_in_its_place() -> None:
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=16, context="ppm", fuse="fam")
    with record(model) as seen:
        assert model(torch.randn(2, 3, 33, 57)).shape == (2, 3, 33, 57)
    assert "decoder.fuses.0.flow" in seen
