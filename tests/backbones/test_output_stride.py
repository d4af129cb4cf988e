"""Backbones whose last stages are dilated instead of losing resolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crispseg.backbones import Backbone


@pytest.mark.parametrize("name", ["resnet18_deep", "test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize(
    ("options", "strides"),
    [
        ({"output_stride": 8}, (4, 8)),
        ({"output_stride": 16, "strides": (4, 16)}, (4, 16)),
        ({"output_stride": 8, "strides": (4, 8, 8, 8)}, (4, 8, 8, 8)),
    ],
)
def test_the_deepest_feature_keeps_its_resolution(name: str, options: dict[str, Any], strides: tuple[int, ...]) -> None:
    plain, backbone = Backbone(name), Backbone(name, **options).eval()
    assert backbone.strides == strides
    assert backbone.channels[-1] == plain.channels[-1]  # all of the network
    keys = {key for key in backbone.state_dict() if "running" in key}
    assert keys == {key for key in plain.state_dict() if "running" in key}
    for height, width in ((32, 32), (33, 57)):
        with torch.no_grad():
            features = backbone(torch.randn(1, 3, height, width))
        assert [tuple(feature.shape) for feature in features] == [
            (1, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(backbone.channels, strides, strict=True)
        ]


@pytest.mark.parametrize(
    ("name", "output_stride"), [("resnet18_deep", 8), ("resnet26", 16), ("efficientnet_lite0", 8)]
)  # no strided pooling
def test_every_nth_pixel_is_the_plain_network_s(name: str, output_stride: int) -> None:
    """Dilation leaves the weights' meaning as it is: the plain feature is a subset of the dilated one."""
    plain = Backbone(name, strides=(32,)).eval()
    dilated = Backbone(name, strides=(output_stride,), output_stride=output_stride).eval()
    dilated.load_state_dict(plain.state_dict())
    step = 32 // output_stride
    for size in ((64, 96), (65, 71)):
        images = torch.randn(1, 3, *size)
        coarse, fine = plain(images)[0], dilated(images)[0]
        scale = coarse.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",  # does not know the option
        "ghostnet_100",  # refuses it
        "test_vit",
    ],
)
def test_a_network_that_cannot_be_dilated_names_some_that_can(name: str, refuses: Any) -> None:
    with refuses(name, "output_stride 8", "resnet18_deep", "tf_efficientnet_lite0"):
        Backbone(name, strides=(8,), output_stride=8)


def test_other_output_strides_are_refused(refuses: Any) -> None:
    for output_stride in (0, 4, 12, 64, None, "8"):
        with refuses(f"output_stride is {output_stride!r}", "8, 16 or 32"):
            Backbone("test_efficientnet", output_stride=output_stride)


def test_strides_beyond_the_output_stride_are_refused(refuses: Any) -> None:
    with refuses("[4, 8, 16, 32]", "output_stride 8"):
        Backbone("test_efficientnet", strides=(4, 8, 16, 32), output_stride=8)
