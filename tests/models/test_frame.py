"""The frame that all models share: what moves or surrounds an image changes nothing but by parts that say so."""

from typing import Any

import pytest
import torch
from torch import Tensor

from crispseg import SegmentationModel, create_model, list_models

from .base import check_saved

STRIDE = 32


def local(name: str, **options: Any) -> SegmentationModel:
    """Build a model at scale 1, on a backbone whose receptive field is small and which pools nothing."""
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="test_resnet", inference_scale=1, **options).eval()


LOCAL = ("crisp", "crisp_l", "crisp_s", "fcn", "fpn")
"""Models in which no part pools globally or knows positions."""


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("name", list_models())
def test_parts_say_what_is_not_local(name: str) -> None:
    modules = local(name).modules()
    said = any(hasattr(module, "pools_globally") or hasattr(module, "has_positions") for module in modules)
    assert said == (name not in LOCAL)


@pytest.mark.parametrize("name", LOCAL)
@torch.no_grad()
def test_a_moved_image_has_moved_logits(name: str) -> None:
    model, content = local(name), torch.randn(1, 3, 96, 96)
    first, second = torch.zeros(2, 1, 3, 320, 320)
    first[..., 96:192, 96:192] = content
    second[..., 96 + STRIDE : 192 + STRIDE, 96 + STRIDE : 192 + STRIDE] = content
    moved = model(second)[..., STRIDE + 64 : 256, STRIDE + 64 : 256]
    assert difference(model(first)[..., 64 : 256 - STRIDE, 64 : 256 - STRIDE], moved) < 1e-4


@pytest.mark.parametrize("name", LOCAL)
@torch.no_grad()
def test_surroundings_change_no_logits_far_away(name: str) -> None:
    model, image = local(name), torch.randn(1, 3, 96, 448)
    wider = torch.cat([image, image[..., :64]], dim=3)
    assert difference(model(wider)[..., :160], model(image)[..., :160]) < 1e-4


@pytest.mark.parametrize("name", list_models())
def test_what_fits_is_saved(name: str, tmp_path: Any) -> None:
    """Outside the papers' backbones a model takes what fits, upscales images, and is saved with all that."""
    model = create_model(name, num_classes=3, backbone="test_efficientnet").eval()
    assert not model.align_corners and (model.inference_scale > 1 or name == "crisp_s")
    check_saved(model, torch.randn(1, 3, 70, 45), tmp_path)
    outputs = model.train().outputs(torch.randn(2, 3, 64, 96))
    outputs.logits.square().sum().backward()
    others = {"refiner.boundary_head", "refiner.direction_head"}  # choose where logits are read
    without = {key for key, value in model.named_parameters() if value.grad is None}
    assert all(".".join(key.split(".")[:2]) in others for key in without)


def test_papers_backbones_keep_the_papers_choices() -> None:
    for name in ("sfnet", "agln", "ddsm_upernet", "fpn"):
        model = create_model(name, num_classes=3, backbone="resnet18")
        assert model.align_corners and model.inference_scale == 1
        assert create_model(name, num_classes=3, backbone="resnet18", design="fitted").align_corners is False
    assert create_model("agln", num_classes=3, backbone="resnet18").info.options["width"] == 256
    small = create_model("agln", num_classes=3, backbone="test_efficientnet", design="paper")
    assert small.info.options["width"] == 256 and small.info.options["descriptors"] == 128
