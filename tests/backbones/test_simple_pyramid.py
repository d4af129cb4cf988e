"""The simple feature pyramid, and plain networks of timm in it."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from crispseg.backbones import Backbone
from crispseg.backbones.simple_pyramid import SimplePyramid

from .test_backbone import check_sizes

FAMILIES = {
    "vit": "test_vit",
    "dinov2": "vit_small_patch14_reg4_dinov2",
    "dinov3": "vit_small_patch16_dinov3",
    "eva02": "eva02_tiny_patch14_224",
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_last_map_are_timm_s(family: str, tmp_path: Path) -> None:
    published = timm.create_model(FAMILIES[family], dynamic_img_size=True).eval()
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone(FAMILIES[family], pretrained=tmp_path / "weights.safetensors").eval()
    assert backbone.strides == (4, 8, 16, 32)
    check_sizes(backbone)
    side = published.patch_embed.img_size[0]  # positions keep their size
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        (ours,) = backbone.body(images)
        theirs = published.forward_intermediates(images, indices=1, intermediates_only=True, norm=False)[-1]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("patch", [8, 12, 14, 16, 32])
def test_levels_have_their_strides_for_every_patch_size(patch: int) -> None:
    net = SimplePyramid(nn.Sequential(nn.Conv2d(3, 16, patch, patch), Listed()), patch, 16, (4, 8, 16, 32))
    levels = net(torch.zeros(2, 3, 64, 96))
    expected = [(2, 16, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(level.shape) for level in levels] == expected


class Listed(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


class Centres(nn.Module):
    """The centres of patches in pixels of the image, x and y."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, images: Tensor) -> list[Tensor]:
        rows, columns = ((torch.arange(side // self.patch) + 0.5) * self.patch for side in images.shape[-2:])
        both = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
        return [both.expand(len(images), -1, -1, -1)]


def test_a_resized_map_stays_on_the_image() -> None:
    net = SimplePyramid(Centres(14), 14, 2, (16,))
    net.levels = nn.ModuleList([nn.Identity()])
    (resized,) = net(torch.zeros(1, 3, 160, 224))
    rows, columns = ((torch.arange(count) + 0.5) * 16 for count in (10, 14))
    torch.testing.assert_close(resized[0, 0, 0, 1:-1], columns[1:-1])  # the outermost are between no two patches
    torch.testing.assert_close(resized[0, 1, 1:-1, 0], rows[1:-1])


def test_a_level_is_that_of_vitdet() -> None:
    """Stride 4: two transposed convolutions with LayerNorm and GELU in between, then 1×1 and 3×3 with LayerNorm."""
    backbone = Backbone("test_vit", strides=(4, 32)).eval().requires_grad_(False)
    level: Any = backbone.net.levels[0]
    for norm in (level.norm1, level.reduce_norm, level.conv_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    images = torch.randn(1, 3, 64, 96)
    (deepest,) = backbone.body(images)

    def normalized(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + norm.eps).sqrt()
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    x = F.conv_transpose2d(deepest, level.up0.weight, level.up0.bias, stride=2)
    x = F.gelu(normalized(x, level.norm1))
    x = F.conv_transpose2d(x, level.up1.weight, level.up1.bias, stride=2)
    x = normalized(F.conv2d(x, level.reduce.weight), level.reduce_norm)
    x = normalized(F.conv2d(x, level.conv.weight, padding=1), level.conv_norm)
    finest, coarsest = backbone(images)
    torch.testing.assert_close(finest, x, atol=1e-4, rtol=1e-4)
    pooled: Any = backbone.net.levels[1]
    assert [*dict(pooled.named_children())] == ["pool", "reduce", "reduce_norm", "conv", "conv_norm"]
    assert coarsest.shape[-2:] == (2, 3)
