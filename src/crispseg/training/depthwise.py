"""Depthwise convolutions in bfloat16 on a CPU, whose gradients use only kernels that are fast there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

FAST_SIDE = 3  # side of the largest kernel whose gradient is fast; 1 for dilated kernels


class FastDepthwise(TorchFunctionMode):
    """Context in which depthwise convolutions under CPU autocast are `DepthwiseConv`.

    With oneDNN's own gradients, a step of `crisp` takes 1.8 times as long.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d and len(args) == 7 and is_trained_depthwise(args[0], args[1], args[4], args[6]):
            x, weight, bias, *options = args[:6]
            dtype = torch.get_autocast_dtype("cpu")
            y: Tensor = DepthwiseConv.apply(x.to(dtype), weight.to(dtype), *map(_pair, options))
            return y if bias is None else y + bias.to(y.dtype)[:, None, None]
        return func(*args, **(kwargs or {}))


def is_trained_depthwise(x: Tensor, weight: Tensor, padding: Any, groups: int) -> bool:
    """Return whether arguments of `conv2d` are a depthwise convolution with a gradient, under CPU autocast."""
    if groups == 1 or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return False
    depthwise = x.ndim == 4 and groups == x.shape[1] and not isinstance(padding, str)
    return depthwise and x.device.type == "cpu" and (x.requires_grad or weight.requires_grad)


class DepthwiseConv(torch.autograd.Function):
    """Convolution of each channel of `x` (N, C, H, W) by its own kernels, `weight` (M · C, 1, k, l).

    In bfloat16, the gradient of `x` is slow for strides above 1, and is computed in float32. The gradient of `weight`
    is slow for kernels of more than 3×3, and for dilated ones. It is put together from those of smaller kernels.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, dilation, x.shape[1]
        return F.conv2d(x, weight, None, *ctx.options)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            dtype = torch.float32 if max(stride) > 1 else x.dtype
            shaped = torch.empty_like(x, dtype=dtype)  # for shape and layout, which `torch.nn.grad.conv2d_input` loses
            options = None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
            gradients: Any = torch.ops.aten.convolution_backward(gradient.to(dtype), shaped, weight.to(dtype), *options)
            of_x = gradients[0].to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, weight, *ctx.options)
        return of_x, of_weight, None, None, None


def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Compute the gradient of `weight`, tile by tile of the kernel: each tile sees `x` from its first point on."""
    height, width = weight.shape[2:]
    tile = FAST_SIDE if max(dilation) == 1 else 1
    if max(height, width) <= tile:
        return conv2d_weight(x, weight.shape, gradient, stride, padding, dilation, groups)  # type: ignore[no-untyped-call, no-any-return]
    x = F.pad(x, [padding[1], padding[1] + tile, padding[0], padding[0] + tile])
    rows, columns = ((side - 1) * step + tile for side, step in zip(gradient.shape[2:], stride, strict=True))
    whole, shape = torch.empty_like(weight), torch.Size([*weight.shape[:2], tile, tile])
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            below, right = x[..., top * dilation[0] :, :], left * dilation[1]
            seen = below[..., :rows, right : right + columns].contiguous(memory_format=torch.channels_last)
            part = conv2d_weight(seen, shape, gradient, stride, 0, 1, groups)  # type: ignore[no-untyped-call]
            whole[..., top : top + tile, left : left + tile] = part[..., : height - top, : width - left]
    return whole
