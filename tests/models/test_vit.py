"""Every model on a plain vision transformer, which gets a simple feature pyramid."""

from typing import Any

import pytest

from crispseg import create_model, list_models

from . import test_agln, test_baselines, test_crisp, test_ddsm, test_sfnet, test_unept
from .base import ModelTester

MODULES = (test_agln, test_baselines, test_crisp, test_ddsm, test_sfnet, test_unept)
FOUND = [value for module in MODULES for value in vars(module).values() if isinstance(value, type)]
TESTERS = {tester.name: tester for tester in FOUND if issubclass(tester, ModelTester) and tester is not ModelTester}


def on_vit(name: str) -> ModelTester:
    tester: Any = type("OnViT", (TESTERS[name],), {"backbone": "test_vit"})
    return tester()


def test_every_model_is_tested() -> None:
    assert {*TESTERS} | {"crisp_s", "crisp_l"} == {*list_models()}  # which are crisp with other numbers


@pytest.mark.parametrize("name", ["crisp", "unept"])
def test_logits_have_the_size_of_the_image(name: str) -> None:
    on_vit(name).test_logits_have_the_size_of_the_image()


@pytest.mark.parametrize("name", TESTERS)
def test_every_parameter_receives_a_gradient(name: str) -> None:
    on_vit(name).test_every_parameter_receives_a_gradient(batch=1, auxiliary=True, autocast=True)


def test_the_new_layers_of_a_frozen_vit_are_trained() -> None:
    model = create_model("fpn", num_classes=3, backbone="test_vit", width=16)
    pyramid = {id(parameter) for parameter in model.backbone.net.levels.parameters()}
    groups = {part: {*map(id, parameters)} for part, parameters in model.parameter_groups().items()}
    assert pyramid <= groups["decoder"] and groups["backbone"] == {id(p) for p in model.backbone.body.parameters()}
    assert model.backbone.early_share == 1
    for early in (True, False):
        model.backbone.freeze(early=early)
        assert {id(p) for p in model.backbone.parameters() if p.requires_grad} == pyramid
    assert model.train().backbone.net.levels.training
    assert not any(module.training for module in model.backbone.body.modules())
    assert model.parameter_groups()["backbone"] == []
