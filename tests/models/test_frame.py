"""The frame that all models share: what moves or surrounds an image changes nothing but by parts that say so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crispseg import SegmentationModel, create_model, list_models
from crispseg.backbones import Backbone
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.models.frame import PAPER_BACKBONES, fitted_width

from .base import check_saved

STRIDE = 32


def local(name: str, **options: Any) -> SegmentationModel:
    """Build a model at scale 1, on a backbone whose receptive field is small and which pools nothing."""
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="test_resnet", inference_scale=1, **options).eval()


def is_local(model: SegmentationModel) -> bool:
    return not any(hasattr(module, "pools_globally") or hasattr(module, "has_positions") for module in model.modules())


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.std())


POOLING = {"sfnet", "sfnet_lite", "upernet", "deeplabv3plus", "ddsm_upernet", "ddsm_deeplabv3plus", "agln", "agln_lite"}


@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_a_moved_image_has_moved_logits(name: str) -> None:
    model, content = local(name), torch.randn(1, 3, 96, 96)
    first, second = torch.zeros(2, 1, 3, 320, 320)
    first[..., 96:192, 96:192] = content
    second[..., 96 + STRIDE : 192 + STRIDE, 96 + STRIDE : 192 + STRIDE] = content
    moved = model(second)[..., STRIDE + 64 : 256, STRIDE + 64 : 256]
    if is_local(model):
        assert difference(model(first)[..., 64 : 256 - STRIDE, 64 : 256 - STRIDE], moved) < 1e-4
    else:
        assert name in POOLING | {"unept"}


@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_surroundings_change_no_logits_far_away(name: str) -> None:
    model, image = local(name), torch.randn(1, 3, 96, 448)
    wider = torch.cat([image, image[..., :64]], dim=3)
    if is_local(model):
        assert difference(model(wider)[..., :160], model(image)[..., :160]) < 1e-4
    else:
        assert name in POOLING | {"unept"}


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


def test_every_backbone_of_the_recipes_is_one_of_the_papers() -> None:
    used: set[str] = set()

    def collect(tree: Any) -> None:
        if isinstance(tree, dict):
            used.update(value for key, value in tree.items() if key == "backbone" and isinstance(value, str))
            tree = tree.values()
        if not isinstance(tree, str | int | float | bool | None):
            for value in tree:
                collect(value)

    for file in RECIPES.rglob("*.yaml"):
        if file.name != "quickstart.yaml":
            collect(read_yaml(file))
    assert used <= PAPER_BACKBONES


def test_widths_fit_the_backbone() -> None:
    widths = {name: fitted_width(Backbone(name).channels) for name in ("test_efficientnet", "resnet18", "resnet50")}
    assert widths == {"test_efficientnet": 64, "resnet18": 128, "resnet50": 256}
