"""benchmarks/peers.py: networks of another library, trained by the recipe of this one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from crispseg.config.plugins import load_plugins
from crispseg.models import create_model
from crispseg.models.registry import models

PEERS = ("smp_fpn", "smp_unet", "smp_deeplabv3plus", "smp_upernet", "smp_segformer")
BACKBONE = "tf_efficientnet_lite0"


@pytest.fixture(scope="module", autouse=True)
def plugin() -> Iterator[None]:
    pytest.importorskip("segmentation_models_pytorch")
    load_plugins([str(Path(__file__).resolve().parents[1] / "benchmarks/peers.py")])
    yield
    for name in PEERS:
        del models._entries[name]
    for name in [name for name in sys.modules if name.startswith("crispseg_plugin_peers_")]:
        del sys.modules[name]  # so that others can load it again


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("early", [True, False])
def test_the_same_weights_are_frozen_as_of_our_networks(name: str, early: bool) -> None:
    ours, peer = (create_model(each, num_classes=2, backbone=BACKBONE).train() for each in ("crisp", name))
    assert peer.backbone.early_share == ours.backbone.early_share > 0
    for model in (ours, peer):
        model.backbone.freeze(early=early)
    body, encoder = ours.backbone.net.model, peer.net.encoder.model
    for key, parameter in encoder.named_parameters():
        assert parameter.requires_grad == body.get_parameter(key).requires_grad, key
    peer.eval().train()
    kept = {key: value.clone() for key, value in encoder.named_buffers()}
    peer(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(kept[key], value) for key, value in encoder.named_buffers())
    norms = [module for module in peer.modules() if isinstance(module, nn.BatchNorm2d)]
    inside = {id(module) for module in encoder.modules()}
    assert all(module.training == (id(module) not in inside) for module in norms)
