"""DF1, DF2, STDC-1, STDC-2 and ShuffleNet v2, which timm does not have."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from contract.formula import image
from contract.test_official import assert_computed, official
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from crispseg.backbones import Backbone

from .test_backbone import check_sizes

SHUFFLENET = "shufflenetv2_x1_0"


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("df1", (16, 32, 32), (128, 256, 512)),
        ("df2", (8, 16, 32), (128, 256, 512)),
        ("stdc1", (4, 8, 16, 32), (64, 256, 512, 1024)),
        ("stdc2", (4, 8, 16, 32), (64, 256, 512, 1024)),
        (SHUFFLENET, (4, 8, 16, 32), (24, 116, 232, 1024)),
    ],
)
def test_features_have_these_sizes(name: str, strides: tuple[int, ...], channels: tuple[int, ...]) -> None:
    backbone = Backbone(name, in_chans=4).eval()
    assert (backbone.strides, backbone.channels) == (strides, channels)
    assert (backbone.mean, backbone.std) == ((0.485, 0.456, 0.406, 0.485), (0.229, 0.224, 0.225, 0.229))
    check_sizes(backbone)


@pytest.mark.parametrize(("name", "first"), [("df1", "stage1.0"), ("stdc1", "features.0.conv")])
def test_weights_under_the_released_names_give_the_released_features(
    name: str, first: str, tmp_path: Path, refuses: Any
) -> None:
    expected, state = official(f"sfnet_{name}")
    weights = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    weights = {key: value.half().float() if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({**weights, "fc.weight": torch.ones(1000, 512)}, tmp_path / "imagenet.pth")
    with torch.no_grad():
        features = Backbone(name, pretrained=tmp_path / "imagenet.pth").eval()(image(expected["size"].tolist()))
    assert_computed({f"feature.{index}": feature for index, feature in enumerate(features)}, expected)
    grey = next(Backbone(name, pretrained=tmp_path / "imagenet.pth", in_chans=1).parameters())
    torch.testing.assert_close(grey, weights[f"{first}.weight"].sum(1, keepdim=True))
    with refuses("imagenet.pth", "does not match backbone 'resnet18_deep'"):
        Backbone("resnet18_deep", pretrained=tmp_path / "imagenet.pth")


@pytest.fixture(scope="module")
def torchvision_s() -> nn.Module:
    torch.manual_seed(1)
    net = torchvision.models.shufflenet_v2_x1_0(weights=None)
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64))  # running statistics that are not those of initialisation
    return net.eval()


def test_a_file_of_torchvision_gives_torchvision_s_features(torchvision_s: nn.Module, tmp_path: Path) -> None:
    torch.save(torchvision_s.state_dict(), tmp_path / "weights.pth")
    images = torch.randn(1, 3, 65, 97)
    features = Backbone(SHUFFLENET, pretrained=tmp_path / "weights.pth").eval()(images)
    whole = create_feature_extractor(torchvision_s, ["maxpool", "stage2", "stage3", "conv5"])
    for ours, theirs in zip(features, whole(images).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_published_weights_come_through_torchvision(
    torchvision_s: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put where torchvision keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1.url
    file = tmp_path / "hub/checkpoints" / url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(torchvision_s.state_dict(), file)
    net = Backbone(SHUFFLENET, pretrained=True, in_chans=1).net
    assert torch.equal(net.conv5[0].weight, torchvision_s.conv5[0].weight)
    torch.testing.assert_close(net.conv1[0].weight, torchvision_s.conv1[0].weight.sum(1, keepdim=True))
