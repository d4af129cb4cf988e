"""Layers shared by all parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics if a training batch has one value per channel.

    Globally pooled features of a single image form such a batch; it has no variance, and PyTorch refuses it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, stride: int = 1
) -> nn.Sequential:
    """Build convolution, batch norm and ReLU; the output has size ⌈size / stride⌉."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def projection(in_channels: int, out_channels: int) -> nn.Module:
    """Build a 1×1 convolution from one width to another; nothing if they are equal."""
    return nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)


def ceil_div(length: int, divisor: int) -> int:
    """Return ⌈length / divisor⌉. In exported graphs, -(-length // divisor) would round towards zero."""
    return (length + divisor - 1) // divisor


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad `(N, C, H, W)` with zeros, below and on the right, to sides that are multiples of `multiple`."""
    if multiple == 1:
        return images
    height, width = images.shape[-2:]
    below, right = (ceil_div(side, multiple) * multiple - side for side in (height, width))
    known = isinstance(below, int) and isinstance(right, int)  # otherwise they are symbols of an exported graph
    return images if known and not (below or right) else F.pad(images, (0, right, 0, below))


def upcast(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to `size = (H, W)`; return `x` itself if it has this size."""
    if torch.compiler.is_exporting():
        return _resize_in_graph(x, size, align_corners)
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=align_corners)


def _resize_in_graph(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize in an exported graph for all sizes; a check of the size would become a constant of the graph.

    PyTorch checks for a single pixel if corners are aligned. This function then makes two pixels and uses the first.
    """
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports sympy, which takes long

    if all(statically_known_true(before == after) for before, after in zip(x.shape[-2:], size, strict=True)):
        return x
    single = align_corners and not all(statically_known_true(length > 1) for length in size)
    larger: list[Any] = [torch.sym_max(length, 2) for length in size] if single else list(size)
    resized = F.interpolate(x, size=larger, mode="bilinear", align_corners=align_corners)
    return resized[..., : size[0], : size[1]] if single else resized


def resize_to_images(maps: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Resize maps `(N, C, ⌈H / stride⌉, ⌈W / stride⌉)`, aligned at pixel centres, to images of `size = (H, W)`."""
    height, width = size
    rows, columns = (ceil_div(side, stride) * stride for side in size)
    resized = resize(maps, (rows, columns), align_corners=False)[..., :height, :width]
    known = all(isinstance(side, int) for side in resized.shape[2:])
    # In a graph for all sizes, those of a slice are minima, which PyTorch cannot compare; padded by 0 they are equal.
    return resized if known else F.pad(resized, (0, width - resized.shape[3], 0, height - resized.shape[2]))


def mix_channels(weights: Tensor, x: Tensor) -> Tensor:
    """Mix the channels of `x` (B, C, H, W) by `weights` (B, C', C) to (B, C', H, W), in the layout of `x`."""
    pixels = x.flatten(2)  # (B, C, H · W)
    if is_channels_last(x):
        return torch.unflatten(torch.bmm(pixels.mT, weights.mT).mT, 2, x.shape[-2:])  # memory layout (B, H, W, C')
    return torch.unflatten(torch.bmm(weights, pixels), 2, x.shape[-2:])  # (B, C', H, W)


def channel_softmax(x: Tensor) -> Tensor:
    """Apply softmax over the channels of `x` (B, C, H, W) in its layout; `torch.softmax` always writes planes."""
    if is_channels_last(x):
        return torch.softmax(x.movedim(1, 3), dim=3).movedim(3, 1)  # over (B, H, W, C)
    return torch.softmax(x, dim=1)


def is_channels_last(x: Tensor) -> bool:
    """Return whether `x` (B, C, H, W) is only channels-last; always false during export of a graph.

    An exported graph serves all sizes and must not check the layout.
    """
    if torch.compiler.is_exporting():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def same_layout(x: Tensor) -> Tensor:
    """Return a contiguous copy during export: a graph for all sizes needs the same layout for each of them."""
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else x


def average_bins(feature: Tensor, size: int) -> Tensor:
    """Compute `F.adaptive_avg_pool2d(feature, size)` as two matrix products; export then works for any image size.

    It maps `(N, C, h, w)` to `(N, C, size, size)`.
    """
    index = torch.arange(size, device=feature.device)
    rows, columns = (_inside_bins(length, index, size) for length in feature.shape[-2:])  # (h, size), (w, size)
    maps = feature.flatten(0, 1)  # (N · C, h, w)
    # Not @: it checks whether there is one row, and an exported graph would make the result a constant.
    right, left = (bins.to(feature.dtype).expand(maps.shape[0], -1, -1) for bins in (columns, rows.mT))
    sums = torch.bmm(left, torch.bmm(maps, right))  # (N · C, size, size)
    # The division is last and in float32: 0 and 1 are exact in bfloat16, 1 / n and n are not.
    averages = (sums / (rows.sum(0)[:, None] * columns.sum(0)).float()).to(sums.dtype)
    return averages.view(*feature.shape[:2], size, size)  # (N, C, size, size)


def _inside_bins(length: int, index: Tensor, size: int) -> Tensor:
    """Return whether each pixel along one axis is in each bin, `(length, size)`.

    Bin i of b reaches from pixel ⌊i · length / b⌋ to before ⌈(i + 1) · length / b⌉; the code multiplies both by b.
    """
    start = torch.arange(length, device=index.device)[:, None] * size  # (length, 1)
    return (index * length < start + size) & (start < (index + 1) * length)
