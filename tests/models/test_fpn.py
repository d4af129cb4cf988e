from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg import CrispsegError, create_model, from_pretrained, record
from crispseg.counting import count_multiply_adds, count_parameters

from .base import ExportTester, ModelTester


class TestFPN(ModelTester):
    name = "fpn"
    taps: ClassVar = {"decoder.coarsest": (16, 32)}


class TestCrisp(ExportTester):
    name = "crisp"
    stride = 1
    options: ClassVar = {"width": 16, "enlarge": 1.0}  # which is for eval mode only
    export_options: ClassVar = {"enlarge": 1.5}
    taps: ClassVar = {"decoder.coarsest": (16, 32)}


def test_each_place_of_the_finest_level_has_logits_of_its_own_pixels() -> None:
    model = create_model("crisp", num_classes=3, backbone="test_efficientnet", width=16, enlarge=1).eval()
    images = torch.randn(2, 3, 38, 65)
    logits, places = model(images), model.classifier(model.coarse(images).decoded.feature)
    assert logits.shape == (2, 3, 38, 65) and places.shape == (2, 3 * 16, 10, 17)
    for y, x in [(0, 0), (1, 2), (5, 63), (37, 64)]:
        own = places[:, :, y // 4, x // 4].reshape(2, 3, 4, 4)
        assert torch.equal(logits[:, :, y, x], own[:, :, y % 4, x % 4])


@pytest.mark.parametrize(
    ("name", "backbone"), [("crisp", "test_efficientnet"), ("sfnet", "tf_mobilenetv3_small_minimal_100")]
)
def test_images_of_any_size_have_the_logits_of_padded_ones(name: str, backbone: str) -> None:
    torch.manual_seed(0)
    options = {"enlarge": 1} if name == "crisp" else {}
    model = create_model(name, num_classes=3, backbone=backbone, width=8, **options).eval()
    images = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        coarse, decoded = model.coarse(images)
        whole = model.coarse(F.pad(images, (0, 6, 0, 26))).logits
    rows, columns = (70, 90) if name == "crisp" else (18, 23)
    assert coarse.shape[-2:] == (rows, columns)
    assert torch.equal(coarse, whole[..., :rows, :columns])
    assert [level.shape[-1] for level in decoded.levels] == [23, 12, 6]


def test_levels_of_crisp_lie_on_each_other_alike_at_all_places() -> None:
    """Where a coarse level rises steadily, so does what comes of it, at the same places whatever the size."""
    for size in (4, 9):
        crisp, fpn = (
            create_model(name, num_classes=3, backbone="test_efficientnet", width=2) for name in ("crisp", "fpn")
        )
        coarse = torch.arange(size).float().expand(1, 2, size, size)
        centred, cornered = (
            model.decoder.fuses[0](torch.zeros(1, 2, 2 * size, 2 * size), coarse) for model in (crisp, fpn)
        )
        inside = torch.arange(1, 2 * size - 1)
        torch.testing.assert_close(centred[0, 0, 0, inside], inside / 2 - 0.25)
        torch.testing.assert_close(cornered[0, 0, 0], torch.linspace(0, size - 1, 2 * size))


def test_a_backbone_that_pads_alike_at_all_sizes_sees_images_as_they_are() -> None:
    model = create_model("sfnet", num_classes=3, backbone="resnet10t", width=8)
    images = torch.randn(1, 3, 70, 90)
    assert model.padded(images) is images


@settings(max_examples=10, deadline=None)
@given(st.integers(32, 70), st.integers(32, 70), st.floats(1, 2.5))
def test_images_are_seen_as_large_as_is_said(height: int, width: int, enlarge: float) -> None:
    model = create_model("crisp", num_classes=3, backbone="test_efficientnet", width=16, enlarge=enlarge).eval()
    images = torch.randn(2, 3, height, width)
    larger = F.interpolate(
        images, [int(side * model.enlarge) for side in (height, width)], mode="bilinear", align_corners=False
    )
    model.enlarge, factor = Fraction(1), model.enlarge
    seen = model(larger)
    model.enlarge = factor
    expected = F.interpolate(seen, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(images), expected)
    training = model.train()(images)
    model.enlarge = Fraction(1)
    assert torch.equal(training, model(images))


def test_a_factor_of_two_decimals_is_taken_as_it_is() -> None:
    model = create_model("crisp", num_classes=3, backbone="test_efficientnet", width=8, enlarge=1.03)
    assert model.enlarge == Fraction(103, 100)


@pytest.mark.parametrize("enlarge", [0.5, 5, float("nan")])
def test_a_factor_that_cannot_be(enlarge: float) -> None:
    with pytest.raises(CrispsegError, match=f"enlarge is {enlarge:g}; give a factor from 1 to 4"):
        create_model("crisp", num_classes=3, backbone="test_efficientnet", enlarge=enlarge)


def test_counts_are_those_of_agln_s_baseline() -> None:
    """Li et al., Tables IV and VIII."""
    with torch.device("meta"):  # nothing is computed
        model = create_model("fpn", num_classes=59, backbone="resnet101_deep")
    assert count_parameters(model) == pytest.approx(54.32e6, rel=0.005)
    assert count_multiply_adds(model, 480, 480) == pytest.approx(124.6e9, rel=0.025)


@pytest.mark.parametrize(
    ("fuse", "tap"), [("fam", "flow"), ("ddsm", "x_Sout"), ("cfb", "cfb.sdm.M"), ("dcn", "offset")]
)
def test_parts_of_other_systems_work_in_its_place(fuse: str, tap: str) -> None:
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=16, context="ppm", fuse=fuse)
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


def test_a_saved_model_keeps_the_width_that_it_was_built_with(tmp_path: Path) -> None:
    """That was 256 on every backbone once."""
    create_model("fpn", num_classes=3, backbone="test_efficientnet", width=256).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).decoder.width == 256
    assert create_model("fpn", num_classes=3, backbone="test_efficientnet").decoder.width == 64
