"""What the frame does for all models alike, shown on one. test_refinement.py: what it does for those that refine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import list_models
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters
from crispseg.models import Outputs

from .base import NUM_CLASSES, ModelTester, check_saved, equal, state
from .test_baselines import TestFPN as Base


def test_every_model_has_a_tester() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"{__package__}.{path.stem}")
    tested = {tester.name for tester in ModelTester.__subclasses__() if tester.__module__.startswith(__package__)}
    assert tested | {"crisp_s", "crisp_l"} == set(list_models())  # which are crisp with other numbers


@pytest.mark.parametrize("call", ["forward", "outputs", "coarse_logits"])
def test_images_that_no_model_takes_are_refused(call: str, refuses: Any) -> None:
    run = getattr(Base.reference(), call)
    for height, width in ((31, 64), (64, 31), (1, 1)):
        with refuses(f"{height}×{width}", "at least 32"):
            run(torch.randn(1, 3, height, width))
    for images in (torch.randn(3, 64, 64), torch.randn(1, 4, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with refuses("float images (N, 3, H, W)", str(tuple(images.shape)), "crispseg.Segmenter"):
            run(images)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_images_need_not_be_rgb(in_chans: int, tmp_path: Path) -> None:
    model = Base.build(in_chans=in_chans).eval()
    assert len(model.info.mean) == len(model.info.std) == in_chans
    check_saved(model, torch.randn(1, in_chans, 33, 57), tmp_path)


def test_outputs_say_what_the_model_has() -> None:
    images = torch.randn(2, 3, 33, 57)
    plain = Base.reference().outputs(images)
    assert isinstance(plain, Outputs)
    assert plain._fields == ("logits", "unrefined", "auxiliary", "boundary", "direction")
    assert plain[1:] == (None,) * 4
    deep = Base.build(auxiliary=True).outputs(images)
    assert isinstance(deep.auxiliary, tuple)
    assert [logits.shape for logits in deep.auxiliary] == [(2, NUM_CLASSES, 33, 57)] * 3


def test_auxiliary_heads_are_in_no_count() -> None:
    plain, model = Base.build(), Base.build(auxiliary=True)
    assert len([*model.parameters()]) > len([*plain.parameters()])
    assert count_parameters(model) == count_parameters(plain)
    assert count_multiply_adds(model, 64, 64) == count_multiply_adds(plain, 64, 64)
    assert "auxiliary" not in model.info.options


def test_a_frozen_backbone_stays_as_it_is() -> None:
    model = Base.build().train()
    model.backbone.freeze()
    before, decoder_before = state(model.backbone), state(model.decoder)
    groups = model.parameter_groups()
    assert groups["backbone"] == []
    optimizer = torch.optim.SGD(groups["decoder"], lr=0.1)
    for _ in range(3):
        model.train()
        model(torch.randn(1, 3, 32, 32)).square().mean().backward()  # PyTorch refuses it unless the backbone is frozen
        optimizer.step()
        model.eval()
    assert equal(state(model.backbone), before)
    assert not equal(state(model.decoder), decoder_before)


def test_parameter_groups_hold_each_parameter_once() -> None:
    model = Base.build(auxiliary=True, refine="boundary")
    groups = model.parameter_groups()
    assert {id(p) for p in groups["backbone"]} == {id(p) for p in model.backbone.parameters()}
    together = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())
