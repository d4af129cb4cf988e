"""Backbones whose last stages are dilated instead of losing resolution."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers import Conv2dSame
from torch import Tensor, nn

from crispseg.backbones import Backbone, read_state_dict
from crispseg.backbones.timm_networks import LeanConv2dSame

TINY = "test_efficientnet"


def check_sizes(backbone: Backbone) -> None:
    """Features are ⌈side / stride⌉ pixels large, whatever the image's size."""
    for batch, height, width in ((1, 32, 32), (2, 33, 57), (1, 64, 95)):
        with torch.no_grad():
            features = backbone(torch.randn(batch, backbone.in_chans, height, width))
        assert [tuple(feature.shape) for feature in features] == [
            (batch, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (f"{TINY}.r160_in1k", (24, 32, 48, 64)),  # with a tag, as timm names its weights
        ("resnet18_deep", (64, 128, 256, 512)),
        ("test_convnext", (24, 32, 48, 64)),  # floors sizes: works on padded images
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768)),
    ],
)
def test_features_are_a_pyramid_at_any_size(name: str, channels: tuple[int, ...]) -> None:
    backbone = Backbone(name).eval()
    assert backbone.strides == (4, 8, 16, 32)
    assert backbone.channels == channels
    check_sizes(backbone)


@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_mean_and_std_are_those_of_timm(in_chans: int) -> None:
    config = timm.create_model(TINY).pretrained_cfg
    backbone = Backbone(TINY, in_chans=in_chans)
    for ours, theirs in ((backbone.mean, config["mean"]), (backbone.std, config["std"])):
        if in_chans == 1:
            assert ours == pytest.approx((sum(theirs) / 3,))
        else:
            assert ours == (*theirs, theirs[0])[:in_chans]


PYRAMID = ("[4, 8, 16, 32] are needed", "resnet18", "convnext_tiny")
DILATE = ("output_stride 8", "resnet18_deep", "tf_efficientnet_lite0")


@pytest.mark.parametrize(
    ("name", "options", "phrases"),
    [
        ("resnet18_dep", {}, ("unknown backbone", "did you mean 'resnet18_deep'?")),
        ("DF1", {}, ("unknown backbone", "df1, df2, stdc1, stdc2, shufflenetv2_x1_0 and any timm ViT or model")),
        ("levit_128s", {}, ("at strides [16, 32, 64]", *PYRAMID)),
        ("efficientformerv2_s0", {}, ("fixed image sizes", "ResNet")),
        ("resnet18_deep", {"pretrained": True}, ("no published weights", "give pretrained a path", "'resnet18'")),
        ("swin_tiny_patch4_window7_224", {"output_stride": 8, "strides": (8,)}, DILATE),  # does not know the option
        ("ghostnet_100", {"output_stride": 8, "strides": (8,)}, DILATE),  # refuses it
    ],
)
def test_what_a_network_cannot_do_names_what_works(
    name: str, options: dict[str, Any], phrases: tuple[str, ...], refuses: Any
) -> None:
    with refuses(f"'{name}'", *phrases):
        Backbone(name, **options)


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """A whole classification network, as its weights are published."""
    torch.manual_seed(1)
    net = timm.create_model(TINY)
    net(torch.randn(4, 3, 64, 64))  # running statistics that are not those of initialisation
    return net.eval()


Write = Callable[[dict[str, Tensor], Path], Any]


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("weights.safetensors", save_file),
        ("weights.pth", torch.save),
        ("weights.bin", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        ("nested.pth", lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path)),
        ("nested.pt", lambda state, path: torch.save({"model": state}, path)),
        ("parallel.pth", lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path)),
    ],
)
def test_a_local_weight_file_gives_its_network_s_features(
    file: str, write: Write, published: nn.Module, tmp_path: Path
) -> None:
    write(published.state_dict(), tmp_path / file)
    images = torch.randn(1, 3, 64, 96)
    features = Backbone(TINY, pretrained=tmp_path / file).eval()(images)
    expected = published.forward_intermediates(images, intermediates_only=True)[-4:]
    for ours, theirs in zip(features, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_rgb_weights_fit_other_images(published: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(published.state_dict(), path)
    rgb = published.conv_stem.weight
    grey = Backbone(TINY, pretrained=path, in_chans=1)
    torch.testing.assert_close(grey.net.model.conv_stem.weight, rgb.sum(1, keepdim=True))
    four = Backbone(TINY, pretrained=path, in_chans=4).net.model.conv_stem.weight
    torch.testing.assert_close(four, torch.cat([rgb, rgb[:, :1]], 1) * 3 / 4)
    # A grey image has the features that it would have as RGB.
    image = torch.randn(1, 1, 64, 64)
    expected = Backbone(TINY, pretrained=path).eval()(image.expand(1, 3, 64, 64))
    for ours, theirs in zip(grey.eval()(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


class Bomb:
    """Unpickled without restriction, this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_weight_file_does_not_run(
    write: Any, tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    write({"state_dict": {"a": torch.ones(1)}, "more": Bomb()}, path)
    with refuses(str(path), "not a plain state dict"):
        Backbone(TINY, pretrained=path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "value", [[torch.ones(1)], torch.ones(1), {"a": 1}, {"state_dict": {"a": torch.ones(1), "b": 2}}]
)
def test_a_file_without_a_state_dict_is_refused(value: Any, tmp_path: Path, refuses: Any) -> None:
    torch.save(value, tmp_path / "weights.pth")
    with refuses(str(tmp_path / "weights.pth"), " state dict"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize(("file", "write"), [("weights.safetensors", save_file), ("weights.pth", torch.save)])
def test_a_file_of_something_else_or_cut_short_is_refused(
    file: str, write: Write, tmp_path: Path, refuses: Any
) -> None:
    path = tmp_path / file
    write({"stem.weight": torch.randn(4, 3, 3, 3), "stem.bias": torch.randn(4)}, path)
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4cf4ab\nsize 18\n"
    lengths = (*range(16), *range(16, len(whole), len(whole) // 16), len(whole) - 1)
    for content in (pointer, b"PK\x03\x04" + bytes(100), *(whole[:length] for length in lengths)):
        path.write_bytes(content)
        with refuses(str(path), "damaged"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("tf_efficientnet_lite0", "test_convnext", "df1", "shufflenetv2_x1_0")),
        ("test_vit", {"blocks": 3}),
        ("resnet18", {"in_chans": 4, "strides": (8, 16, 32)}),
    ],
)
def test_early_stages_freeze(name: str, options: dict[str, Any]) -> None:
    backbone = Backbone(name, **options).eval()
    images = torch.randn(2, backbone.in_chans, 64, 64)
    expected = backbone(images)
    expected[0].sum().backward()
    upstream = {key for key, parameter in backbone.named_parameters() if parameter.grad is not None}
    start = {key: value.clone() for key, value in backbone.state_dict().items()}
    sizes = {key: parameter.numel() for key, parameter in backbone.named_parameters()}
    with torch.no_grad():  # as while a model is traced
        assert backbone.early_share == sum(sizes[key] for key in upstream) / sum(sizes.values())
        backbone.freeze(early=True)
    assert upstream == {key for key, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert any(parameter.requires_grad for parameter in backbone.parameters())
    assert all(map(torch.equal, backbone(images), expected))
    assert all(torch.equal(value, start[key]) for key, value in backbone.state_dict().items())

    features = backbone.train()(images)
    assert backbone.training and not features[0].requires_grad and features[-1].requires_grad
    assert all(torch.equal(value, start[key]) for key, value in backbone.state_dict().items())
    late = [norm for norm in backbone.modules() if isinstance(norm, nn.BatchNorm2d) and norm.weight.requires_grad]
    assert not any(norm.training for norm in late)


@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(1, 34), st.integers(1, 34)),
)
def test_same_padding_without_a_copy_is_timm_s(kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
    expected = Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2).double()
    leaner = copy.deepcopy(expected)
    leaner.__class__ = LeanConv2dSame
    images = torch.randn(2, 4, *size, dtype=torch.float64)
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode:
            torch.testing.assert_close(leaner(images), expected(images))


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        *(("resnet18_deep", (4, 16)), ("test_resnet", (4, 8, 8, 8))),
        *(("test_efficientnet", (4, 16)), ("test_convnext", (4, 8, 8, 8))),
    ],
)
def test_the_deepest_feature_keeps_its_resolution(name: str, strides: tuple[int, ...]) -> None:
    plain, backbone = Backbone(name), Backbone(name, output_stride=strides[-1], strides=strides).eval()
    assert backbone.strides == strides
    assert backbone.channels[-1] == plain.channels[-1]  # all of the network
    keys = {key for key in backbone.state_dict() if "running" in key}
    assert keys == {key for key in plain.state_dict() if "running" in key}
    check_sizes(backbone)


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18_deep", 16), ("efficientnet_lite0", 8)])
def test_every_nth_pixel_is_the_plain_network_s(name: str, output_stride: int) -> None:
    """Dilation leaves the weights' meaning as it is: the plain feature is a subset of the dilated one."""
    plain = Backbone(name, strides=(32,)).eval()
    dilated = Backbone(name, strides=(output_stride,), output_stride=output_stride).eval()
    dilated.load_state_dict(plain.state_dict())
    step = 32 // output_stride
    for size in ((64, 96), (65, 71)):
        images = torch.randn(1, 3, *size)
        coarse, fine = plain(images)[0], dilated(images)[0]
        scale = coarse.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=0, atol=1e-4 * scale)
