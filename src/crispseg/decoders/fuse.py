"""Fuse and merge parts of other papers, for comparison with the models here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, Levels, fuses, merges
from crispseg.nn import BatchNorm2d, Tap, conv_bn_relu, projection, resize, upcast


@fuses.register("add")
class UpsampleAdd(nn.Module):
    """Bilinear upsampling and addition (Lin et al., *Feature Pyramid Networks*, CVPR 2017)."""

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        same = fine_channels == coarse_channels
        self.project = nn.Identity() if same else nn.Conv2d(coarse_channels, fine_channels, 1)

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        return fine + resize(self.project(coarse), fine.shape[-2:], align_corners=self.align_corners)


@fuses.register("dcn")
class DeformableFuse(nn.Module):
    """Deformable 3×3 convolution (Dai et al., *Deformable Convolutional Networks*, ICCV 2017, §2.1) on both levels.

    Its input is the concatenation of the bilinearly upsampled coarse level and the fine level. A 3×3 convolution on the
    same input predicts the offsets, which start at zero.

    Taps: `offset` (N, 18, H, W), the y and x displacement, in fine pixels, of each of the kernel's nine points; `fused`
    (N, C, H, W), the output.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        both = fine_channels + coarse_channels
        self.predict_offset = nn.Conv2d(both, 2 * 3 * 3, 3, padding=1)
        nn.init.zeros_(self.predict_offset.weight)
        nn.init.zeros_(self.predict_offset.bias)  # type: ignore[arg-type]
        self.offset, self.fused = Tap(), Tap()
        self.deform = nn.Conv2d(both, fine_channels, 3, bias=False)  # only its weights are used

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        both = torch.cat([resize(coarse, fine.shape[-2:], align_corners=self.align_corners), fine], dim=1)
        return self.fused(deform_conv3x3(both, self.offset(self.predict_offset(both)), self.deform.weight))


def deform_conv3x3(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Compute `torchvision.ops.deform_conv2d` with padding 1: sample the nine points of each pixel, then multiply.

    It consists of PyTorch's own operators: it trains about five times as fast on a CPU, follows autocast, and can be
    exported. It maps `x` (N, C, H, W), `offset` (N, 18, H, W), y and x of the kernel's points row by row, and `weight`
    (C', C, 3, 3) to (N, C', H, W). Coordinates and samples are at least float32.
    """
    height, width = x.shape[-2:]
    dy, dx = torch.unflatten(upcast(offset), 1, (9, 2)).unbind(2)  # (N, 9, H, W) each
    steps = torch.arange(3, device=x.device) - 1
    ys = torch.arange(height, device=x.device)[:, None] + steps.repeat_interleave(3)[:, None, None] + dy
    xs = torch.arange(width, device=x.device) + steps.repeat(3)[:, None, None] + dx
    grid = torch.stack([(2 * xs + 1) / width - 1, (2 * ys + 1) / height - 1], dim=-1).flatten(1, 2)  # (N, 9 · H, W, 2)
    points = F.grid_sample(upcast(x), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    columns = torch.unflatten(points, 2, (9, height)).flatten(1, 2).to(x.dtype)  # (N, C · 9, H, W)
    return F.conv2d(columns, weight.flatten(1)[:, :, None, None])  # weights (C', C · 9, 1, 1)


@merges.register("concat")
class Concat(nn.Module):
    """Concatenation of all levels at the finest level's size, followed by a 3×3 convolution."""

    def __init__(self, levels: int, channels: int, out_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv = conv_bn_relu(levels * channels, out_channels, 3)

    def forward(self, levels: Levels) -> Tensor:
        finest, *coarser = levels
        size = finest.shape[-2:]
        upsampled = [resize(level, size, align_corners=self.align_corners) for level in coarser]
        return self.conv(torch.cat([finest, *upsampled], dim=1))


@merges.register("sum")
class Sum(nn.Module):
    """Batch norm and ReLU on the finest level, which already contains the sum of all levels.

    With 1×1 convolutions before it, it is another form of SegFormer's decoder (Xie et al., NeurIPS 2021, §3.2, Eq. 4).
    SegFormer applies a linear layer to each level, and another one to all upsampled and concatenated levels. Two linear
    layers equal a single one and a sum, with a twentieth of the multiply-adds on a light backbone.
    """

    linear = True  # see `is_linear`

    def __init__(self, levels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = projection(channels, out_channels)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, levels: Levels) -> Tensor:
        return F.relu(self.norm(self.project(levels[0])), inplace=True)
