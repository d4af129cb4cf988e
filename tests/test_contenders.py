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
from crispseg.benchmarking.counting import count_parameters

BACKBONE = "test_efficientnet"
CLASSES = 5

Refuses = Callable[..., Any]


def find(name: str, **changes: Any) -> Any:
    return find_contender(name, **{"backbone": BACKBONE, "num_classes": CLASSES, **changes})


def test_names_of_this_library() -> None:
    contender = find("fpn:test_resnet")
    assert isinstance(contender.net, SegmentationModel)
    assert (contender.net.info.name, contender.net.info.backbone) == ("fpn", "test_resnet")
    assert (contender.backbone, contender.num_classes) == ("test_resnet", CLASSES)


@pytest.mark.parametrize(
    ("name", "encoder", "same"),
    [
        ("smp:fpn", "TimmUniversalEncoder", BACKBONE),
        ("smp:FPN:tu-resnet18", "TimmUniversalEncoder", "resnet18"),
        ("smp:FPN:resnet18", "ResNetEncoder", "resnet18"),
        ("smp:FPN:mit_b0", "MixVisionTransformerEncoder", None),
    ],
)
def test_encoders_are_meant_as_their_library_names_them(name: str, encoder: str, same: str | None) -> None:
    found = find(name).net.encoder
    assert type(found).__name__ == encoder
    if same:  # peers stand on the same backbone
        ours = create_model("fpn", num_classes=2, backbone=same, width=8).backbone
        assert count_parameters(found) == count_parameters(ours)


def test_options() -> None:
    contender = find("sfnet{fuse: add, width: 8}")
    expected = create_model("sfnet", num_classes=CLASSES, backbone=BACKBONE, fuse="add", width=8)
    assert contender.net.info == expected.info
    assert contender.name == "sfnet{fuse: add, width: 8}"
    # The documented example, and what all models share
    other = find("sfnet:test_resnet {context: conv, width: 64, in_chans: 1}")
    assert (other.backbone, other.net.info.options["context"]) == ("test_resnet", "conv")
    assert (other.net.info.options["width"], other.normalize.in_chans) == (64, 1)


@pytest.mark.parametrize("kept", ["folder{a}", "sfnet{a"])
def test_folders_may_have_braces(kept: str, tmp_path: Path) -> None:
    create_model("fpn", num_classes=2, backbone=BACKBONE, width=8).save_pretrained(tmp_path / kept)
    assert find(str(tmp_path / kept)).num_classes == 2


def test_backbones_of_this_library_are_not_those_of_others(refuses: Refuses) -> None:
    with refuses("'smp:FPN'", "df1", "smp:FPN:ENCODER"):
        find("smp:FPN", backbone="df1")


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
        ("sfnet:hf_hub:timm/resnet18", ["unknown backbone 'hf_hub:timm/resnet18'"]),
        ("timm:hf_hub:timm/resnet18", ["no network 'hf_hub:timm/resnet18'", "timm.list_models()"]),
        ("sfnet{fuze: add}", ["model 'sfnet'", "no option 'fuze'", "did you mean 'fuse'?"]),
        ("sfnet{context: none}", ["context", "none", "conv"]),
        ("sfnet{fuse}", ["option 'fuse'", "None"]),
        ("sfnet{fuse: add", ["'sfnet{fuse: add'", "{option: value}"]),
        ("sfnet{1: 2}", ["'sfnet{1: 2}'", "{option: value}"]),
        ("sfnet{fuse: add}:resnet18", ["{option: value}", "at the end"]),
        ("sfnet{backbone: resnet18}", ["'sfnet{backbone: resnet18}'", "backbone is no option", "sfnet:BACKBONE"]),
        ("sfnet{num_classes: 3}", ["num_classes is no option in braces", "leave it out"]),
        ("sfnet{pretrained: true}", ["pretrained is no option in braces"]),
        ("sfnet{auxiliary: true}", ["auxiliary is no option in braces"]),
        ("smp:FPN{width: 8}", ["'smp:FPN{width: 8}'", "options"]),
        ("timm:resnet18{width: 8}", ["'timm:resnet18{width: 8}'", "options"]),
        ("sfnet:", ["'sfnet:'", "leave the colon out"]),
        ("smp:FPM", ["'smp:FPM'", "no architecture 'FPM'", "did you mean 'FPN'?"]),
        ("smp:FPN:resnet19", ["no encoder 'resnet19'", "did you mean 'resnet1"]),
        ("smp:FPN:tf_efficientnet_lite0", ["no encoder 'tf_efficientnet_lite0'", "'tu-tf_efficientnet_lite0'"]),
        (
            "smp:Unet:tu-vit_tiny_patch16_224",
            ["'smp:Unet:tu-vit_tiny_patch16_224' cannot be built", "choose another backbone"],
        ),
        ("timm:resnet19", ["no network 'resnet19'", "did you mean 'resnet1"]),
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
