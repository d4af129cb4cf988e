"""timm's published weights: found by timm, or said to be out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from crispseg.backbones import Backbone
from crispseg.backbones.weights import weights_source

TINY = "test_efficientnet"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_weights_come_from_the_cache_or_are_downloaded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *_, **__: str(weights))
    own = Backbone(TINY, pretrained=True).net.model.conv_stem.weight
    torch.manual_seed(1)
    assert torch.equal(own, timm.create_model(TINY).conv_stem.weight)


def test_a_hub_out_of_reach(refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)
    with refuses(TINY, "no connection", "model.pretrained"):
        Backbone(TINY, pretrained=True)


def test_where_weights_come_from(weights: Path) -> None:
    assert weights_source(TINY, str(weights)) == f"the weights in {weights}"
    assert weights_source(TINY, False) == "random weights; see model.pretrained"
    assert weights_source("shufflenetv2_x1_0", True) == "the published weights of shufflenetv2_x1_0"
