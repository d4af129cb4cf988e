from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg import create_model
from crispseg.models import FlowAlignment, SegmentationModel
from crispseg.models.sfnet import warp_inside

from .base import ModelTester
from .test_sfnet import TestSFNet as SFNetTester


class TestCrisp(ModelTester):
    name = "crisp"
    taps: ClassVar = {path: shape for path, shape in SFNetTester.taps.items() if "context" not in path}


def crisp(**options: object) -> SegmentationModel:
    return create_model("crisp", num_classes=3, backbone="test_efficientnet", width=8, **options).eval()


def test_logits_of_levels_lie_on_the_image_as_those_of_all_do() -> None:
    model = crisp(inference_scale=1.5, auxiliary=True)
    assert model.auxiliary_heads is not None
    images = torch.randn(2, 3, 38, 65)
    for inference_scaled in (False, True):
        model.train(not inference_scaled)
        model.auxiliary_heads.eval()
        with torch.no_grad():
            maps, decoded = model.outputs(images).auxiliary, model.features(images)
        assert maps is not None and len(maps) == len(model.auxiliary_heads) == 3
        for logits, level, head, stride in zip(maps, decoded.levels, model.auxiliary_heads, (4, 8, 16), strict=True):
            places = head(level)
            size = (38, 65) if inference_scaled else (places.shape[-2] * stride, places.shape[-1] * stride)
            expected = F.interpolate(places, size, mode="bilinear")[..., :38, :65]
            torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("name", "backbone"), [("crisp", "test_efficientnet"), ("sfnet", "tf_mobilenetv3_small_minimal_100")]
)
def test_images_of_any_size_have_the_logits_of_padded_ones(name: str, backbone: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, backbone=backbone, width=8, inference_scale=1).eval()
    images = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        decoded = model.features(images)
        whole = model.features(F.pad(images, (0, 6, 0, 26)))
    assert decoded.feature.shape[-2:] == (18, 23)
    assert torch.equal(decoded.feature, whole.feature[..., :18, :23])
    assert [level.shape[-1] for level in decoded.levels] == [23, 12, 6]


@pytest.mark.parametrize("fuse", ["add", "fam"])
def test_levels_lie_on_each_other_alike_at_all_places(fuse: str) -> None:
    """Where a coarse level rises steadily, so does what comes of it, at the same places whatever the size."""
    for size in (4, 9):
        centred, cornered = (crisp(fuse=fuse, align_corners=corners).decoder.fuses[0] for corners in (False, True))
        for step in (centred, cornered):
            for parameter in step.parameters():
                torch.nn.init.zeros_(parameter)  # no flow
        coarse = torch.arange(size).float().expand(1, 8, size, size)
        fine = torch.zeros(1, 8, 2 * size, 2 * size)
        inside = torch.arange(1, 2 * size - 1)
        torch.testing.assert_close(centred(fine, coarse)[0, 0, 0, inside], inside / 2 - 0.25)
        torch.testing.assert_close(cornered(fine, coarse)[0, 0, 0], torch.linspace(0, size - 1, 2 * size))


@settings(max_examples=10, deadline=None)
@given(st.integers(32, 70), st.integers(32, 70), st.floats(1.01, 2.5))
def test_images_are_seen_as_large_as_is_said(height: int, width: int, inference_scale: float) -> None:
    """To the nearest multiple of the coarsest stride."""
    model = crisp(inference_scale=inference_scale)
    images = torch.randn(2, 3, height, width)
    sides = [32 * int(side * model.inference_scale / 32 + Fraction(1, 2)) for side in (height, width)]
    larger = F.interpolate(images, sides, mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits, feature = model(images), model.features(images).feature
        factor, model.inference_scale = model.inference_scale, Fraction(1)
        assert torch.equal(feature, model.features(larger).feature)
        places = model.classifier(feature)
        expected = F.interpolate(places, (height, width), mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, expected)
        training = model.train()(images)
        model.inference_scale = factor
        assert training.shape == logits.shape


@pytest.mark.parametrize(
    "options",
    [{}, {"flow_upsampling": "nearest"}, {"flow_kernel": 1}, {"flow_upsampling": "deconvolution", "flow_kernel": 5}],
)
@pytest.mark.parametrize(("coarse_channels", "align_corners"), [(6, True), (9, False)])
def test_a_composed_flow_is_the_same_with_the_same_gradients(
    options: dict[str, Any], coarse_channels: int, align_corners: bool
) -> None:
    fam = FlowAlignment(6, coarse_channels, align_corners, **options).double()
    fine, coarse = torch.randn(2, 6, 7, 11).double(), torch.randn(2, coarse_channels, 3, 5).double()
    composed = fam.composed
    seen = []
    for setting in (composed, False):
        fam.composed = setting
        fam.zero_grad()
        fused = fam(fine, coarse)
        fused.square().sum().backward()
        seen.append([fused, *(parameter.grad for parameter in fam.parameters())])
    torch.testing.assert_close(*seen)
    if align_corners:
        plain = FlowAlignment(6, coarse_channels, **options).double()
        plain.load_state_dict(fam.state_dict())
        torch.testing.assert_close(plain(fine, coarse), seen[0][0])


@pytest.mark.parametrize("leads_back", [True, False])
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_points_that_left_a_level_are_led_back_and_no_further_away(axis: int, side: int, leads_back: bool) -> None:
    """Where gradients are wanted; what they read is the outermost pixel, to a hundredth of a step."""
    ramp = torch.arange(6.0) * side  # which rises to the side where the points have left
    coarse = (ramp if axis == 0 else ramp[:, None]).expand(1, 1, 6, 6)
    flow = torch.zeros(1, 2, 12, 12)
    flow[:, axis] = 100.0 * side
    warped = warp_inside(coarse, flow.requires_grad_())
    torch.testing.assert_close(warped, warp_inside(coarse, flow.detach()), atol=0.021, rtol=0)
    (-warped if not leads_back else warped).sum().backward()
    assert flow.grad is not None
    led = flow.grad[:, axis] * side  # descent goes the other way
    assert bool((led > 0).all()) if leads_back else not led.any()


def test_points_within_a_level_have_the_gradient_of_sampling() -> None:
    torch.manual_seed(0)
    coarse, flow = torch.randn(2, 3, 6, 8), torch.randn(2, 2, 12, 16)
    inside, sampled = flow.clone().requires_grad_(), flow.clone().requires_grad_()
    warp_inside(coarse, inside)[..., 4:-4, 4:-4].square().sum().backward()
    ys, xs = ((torch.arange(size) * 2 + 1) / size - 1 for size in (12, 16))
    grid = torch.stack([xs + sampled[:, 0] / 16, ys[:, None] + sampled[:, 1] / 12], dim=-1)
    F.grid_sample(coarse, grid, align_corners=False)[..., 4:-4, 4:-4].square().sum().backward()
    torch.testing.assert_close(inside.grad, sampled.grad)
