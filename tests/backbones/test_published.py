"""timm's published weights: found in the hub's cache, downloaded, or said at once to be out of reach."""

import inspect
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from crispseg import create_model
from crispseg.backbones import Backbone
from crispseg.backbones import weights as published

TINY = "test_efficientnet"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("cached", [True, False])
def test_weights_come_from_the_cache_or_are_downloaded(
    cached: bool, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(published, "file_exists", lambda repo, file, **_: asked.append(file) or True)
    monkeypatch.setattr(published, "hf_hub_download", lambda *_, **__: str(weights))
    if cached:
        monkeypatch.setattr(published, "try_to_load_from_cache", lambda *_, **__: str(weights))
    own = Backbone(TINY, pretrained=True).net.model.conv_stem.weight
    torch.manual_seed(1)
    assert torch.equal(own, timm.create_model(TINY).conv_stem.weight)
    assert bool(asked) is not cached


def test_weights_of_the_default_backbone_need_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("file_exists", "hf_hub_download"):
        monkeypatch.setattr(published, name, None)
    backbone = Backbone(inspect.signature(create_model).parameters["backbone"].default, pretrained=True).eval()
    random = Backbone("tf_efficientnet_lite0").state_dict()
    same = [key for key, value in backbone.state_dict().items() if torch.equal(value, random[key])]
    assert all(key.endswith("num_batches_tracked") for key in same)


def test_a_hub_out_of_reach_is_asked_once(refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fail(_repo: str, file: str, **_: object) -> None:
        asked.append(file)
        raise OSError("no connection")

    monkeypatch.setattr(published, "file_exists", fail)
    with refuses(TINY, "no connection", "model.pretrained"):
        Backbone(TINY, pretrained=True)
    assert len(asked) == 1
