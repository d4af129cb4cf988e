"""UN-EPT's context branch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from reference import enlarged
from torch import nn

from crispseg import SegmentationModel, create_model, record
from crispseg.backbones import Backbone, plain_strides
from crispseg.models.unept import sine_positions
from crispseg.nn import pixel_centres

from .base import NUM_CLASSES, ModelTester, TapShape, enliven

HEADS = 8


def unept_taps() -> dict[str, TapShape]:
    """Of three levels at 1/8, four points and queries at 1/8."""

    def shape(maps: int, *last: int) -> Callable[[int, int], tuple[int, ...]]:
        return lambda height, width: (maps * -(-height // 8) * -(-width // 8), *last)

    taps: dict[str, TapShape] = {"decoder.context_queries": (16, 8)}
    for layer in range(2):
        parts = (
            ("encoder", "attention", 3, 3),
            ("decoder", "self_attention", 1, 1),
            ("decoder", "cross_attention", 1, 3),
        )
        for part, attention, maps, levels in parts:
            path = f"decoder.{part}.{layer}.{attention}"
            taps[f"{path}.weights"] = shape(maps, HEADS, levels, 4)
            taps |= {f"{path}.{tap}": shape(maps, HEADS, levels, 4, 2) for tap in ("offsets", "locations")}
    return taps


class TestUNEPT(ModelTester):
    name = "unept"
    options: ClassVar = {"width": 16, "points": 4, "refine": None, "design": "paper"}
    stride = 8
    auxiliary_maps = 0
    taps: ClassVar = unept_taps()
    zero_gradients = frozenset({"decoder.scales"})  # reach only points and weights, which do not depend on queries yet

    def test_one_level(self, tmp_path: Path) -> None:
        """Table 6, L = 1; and N = 16."""
        seen = self.check_option(tmp_path, zero_gradients=self.zero_gradients, levels=1, points=16)
        assert seen["decoder.encoder.0.attention.weights"].shape[-2:] == (1, 16)
        for output_stride in (8, 32):
            single, triple = (self.build(levels=levels, output_stride=output_stride).backbone for levels in (1, 3))
            assert (single.strides, single.channels) == (triple.strides[-1:], triple.channels[-1:])

    def test_other_queries_encodings_and_attention(self, tmp_path: Path) -> None:
        """§3.2, §4.2, and as in the released code."""
        self.check_option(tmp_path, encodings="features")
        for options in ({"queries": "naive"}, {"self_attention": "full"}):
            self.check_option(tmp_path, zero_gradients=self.zero_gradients, **options)

    @pytest.mark.parametrize(("output_stride", "strides"), [(16, (8, 16, 16)), (32, (8, 16, 32))])
    def test_levels_of_several_sizes(self, output_stride: int, strides: tuple[int, ...]) -> None:
        model = self.build_lively(output_stride=output_stride)
        assert model.backbone.strides == strides
        assert model(torch.randn(2, 3, 65, 97)).isfinite().all()

    def test_boundary_refinement_starts_from_the_context_queries(self, tmp_path: Path) -> None:
        """Fig. 1: one spatial branch for both."""
        self.check_option(tmp_path, zero_gradients=self.zero_gradients, refine="boundary")
        model = self.build_lively(refine="boundary")
        assert model.refiner is not None and model.refiner.branch is None
        images = torch.randn(2, 3, 65, 97)
        with record(model) as seen:
            outputs = model.outputs(images)
        expected = model.refiner.maps(images, seen["decoder.context_queries"])
        for ours, theirs in zip((outputs.boundary, outputs.direction), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_sine_positions_are_those_of_detr() -> None:
    height, width, channels = 3, 5, 16
    encoded = sine_positions(pixel_centres((height, width)), channels).view(height, width, channels)
    for row in range(height):
        for column in range(width):
            expected = []
            for place in ((row + 0.5) / height, (column + 0.5) / width):
                for k in range(channels // 4):
                    angle = 2 * math.pi * place / 10000 ** (4 * k / channels)
                    expected += [math.sin(angle), math.cos(angle)]
            torch.testing.assert_close(encoded[row, column], torch.tensor(expected), atol=1e-5, rtol=0)


def vit(**options: Any) -> SegmentationModel:
    model = create_model(
        "unept", num_classes=NUM_CLASSES, backbone="test_vit", width=16, points=4, refine=None, **options
    )
    return enliven(model).eval()


def test_position_embeddings_are_resized_bilinearly() -> None:
    backbone = Backbone("test_vit", blocks=1)
    model: Any = backbone.net.model
    nn.init.normal_(model.pos_embed)
    own = model.num_prefix_tokens
    patches = torch.zeros(1, 7, 5, 64)
    tokens = model._pos_embed(patches)
    side = model.patch_embed.grid_size[0]
    grid = model.pos_embed[0, own:].mT.unflatten(1, (side, side))
    expected = enlarged(grid, 7, 5, aligned=False).flatten(1).mT.float()
    torch.testing.assert_close(tokens[0, own:], expected, atol=1e-5, rtol=0)


def test_what_is_plain_and_what_is_not(refuses: Any) -> None:
    for name in ("resnet18", "convnext_atto", "test_efficientnet", "df1", "swin_tiny_patch4_window7_224"):
        assert plain_strides(name) == []
    assert vit(output_stride=16).backbone.strides == (16, 16, 16)
    with refuses("'test_vit' has stride 16", "leave out output_stride=8"):
        vit(output_stride=8)
    with refuses("mixer_s32_224", "fixed image sizes", "vit_base_patch16_224"):
        create_model("unept", num_classes=3, backbone="mixer_s32_224")
    with refuses("mixer_s32_224", "fixed image sizes", "networks with a pyramid"):
        create_model("sfnet", num_classes=3, backbone="mixer_s32_224")
