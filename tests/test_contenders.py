from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from crispseg import SegmentationModel, create_model
from crispseg.benchmarking.contenders import find_contender
from crispseg.counting import count_parameters

BACKBONE = "test_efficientnet"
CLASSES = 5

Refuses = Callable[..., Any]


def find(name: str, **changes: Any) -> Any:
    return find_contender(name, **{"backbone": BACKBONE, "num_classes": CLASSES, **changes})


def test_names_of_this_library() -> None:
    contender = find("fpn:mobilenetv3_small_050")
    assert isinstance(contender.net, SegmentationModel)
    assert (contender.net.info.name, contender.net.info.backbone) == ("fpn", "mobilenetv3_small_050")
    assert (contender.backbone, contender.num_classes) == ("mobilenetv3_small_050", CLASSES)


@pytest.mark.parametrize(
    ("name", "backbone", "same"),
    [
        ("smp:fpn", "resnet18", "resnet18"),
        ("smp:FPN:resnet18", BACKBONE, "resnet18"),
        ("smp:FPN:tu-resnet18", BACKBONE, "resnet18"),
        ("smp:FPN", "resnet18_deep", "resnet18_deep"),
    ],
)
def test_peers_stand_on_the_same_backbone(name: str, backbone: str, same: str) -> None:
    encoder = find(name, backbone=backbone).net.encoder
    ours = create_model("fpn", num_classes=2, backbone=same).backbone
    assert count_parameters(encoder) == count_parameters(ours)


def test_encoders_that_timm_does_not_have() -> None:
    assert type(find("smp:FPN:mit_b0").net.encoder).__module__.startswith("segmentation_models_pytorch")


def test_timm_networks_have_no_classifier() -> None:
    net = find("timm:resnet18").net.eval()
    whole = timm.create_model("resnet18").eval()
    assert count_parameters(net) == count_parameters(whole) - count_parameters(whole.fc)
    assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 512, 2, 3)
    assert count_parameters(find("timm:resnet18_deep").net) > count_parameters(net)


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("sfnett", ["unknown model 'sfnett'", "did you mean 'sfnet'?", "smp:ARCHITECTURE"]),
        ("sfnet:a:b", ["unknown model 'sfnet:a:b'"]),
        ("sfnet:", ["'sfnet:'", "leave the colon out"]),
        ("sfnet:resnet19", ["resnet19"]),
        ("smp:FPM", ["'smp:FPM'", "no architecture 'FPM'", "did you mean 'FPN'?"]),
        ("smp:FPN:resnet19", ["no encoder 'resnet19'", "did you mean 'resnet1"]),
        (
            "smp:Unet:vit_tiny_patch16_224",
            ["'smp:Unet:vit_tiny_patch16_224' cannot be built", "choose another backbone"],
        ),
        ("timm:resnet19", ["no network 'resnet19'", "did you mean 'resnet1"]),
        ("nothing", ["unknown model 'nothing'"]),
    ],
)
def test_names_that_mean_nothing(name: str, phrases: list[str], refuses: Refuses) -> None:
    with refuses(*phrases):
        find(name)


def test_a_folder_without_a_model(tmp_path: Path, refuses: Refuses) -> None:
    with refuses(str(tmp_path), "config.json"):
        find(str(tmp_path))


def test_smp_is_missing(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with refuses("'smp:FPN'", "pip install 'crispseg[benchmarks]'"):
        find("smp:FPN")
