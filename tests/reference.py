"""Plain formulas, in float64, that parts of networks are compared with."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sampled(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """`x` (C, h, w) bilinearly at points of any shape (...), in pixels → (C, ...); zero outside."""
    right, down = (
        (1 - (places.double()[..., None] - torch.arange(n)).abs()).clamp(min=0)  # (..., n)
        for places, n in ((columns, x.shape[2]), (rows, x.shape[1]))
    )
    return torch.einsum("...y,...x,cyx->c...", down, right, x.double())


def enlarged(x: Tensor, height: int, width: int, *, aligned: bool = True) -> Tensor:
    """`x` (C, h, w) bilinearly; aligned: the centres of the corner pixels are on each other, else the corners are."""

    def places(before: int, after: int) -> Tensor:
        index = torch.arange(after, dtype=torch.float64)
        if aligned:
            return index * (before - 1) / max(after - 1, 1)
        return ((index + 0.5) * before / after - 0.5).clamp(0, before - 1)

    rows, columns = places(x.shape[1], height)[:, None], places(x.shape[2], width)
    return sampled(x, *torch.broadcast_tensors(columns, rows))


def one_by_one(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1×1 convolution of (..., C, H, W)."""
    out = torch.einsum("oi,...ihw->...ohw", conv.weight[:, :, 0, 0], x)
    return out if conv.bias is None else out + conv.bias[:, None, None]


def softmax(x: Tensor, dim: int) -> Tensor:
    powers = x.exp()
    return powers / powers.sum(dim, keepdim=True)


def normalized(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """A batch norm's formula on (..., C, H, W)."""
    mean, variance, gain, shift = (
        vector[:, None, None] for vector in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + norm.eps).sqrt() * gain + shift


def convolved(x: Tensor, weight: Tensor, rate: int = 1) -> Tensor:
    """A convolution of (..., C, H, W), zero outside; depth-wise where the weight has one channel and `x` has more."""
    padding = rate * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, padding=padding, dilation=rate, groups=x.shape[-3] // weight.shape[1])


def conv_norm_relu(x: Tensor, layers: nn.Sequential, rate: int = 1) -> Tensor:
    """One convolution or more without bias, a batch norm, a ReLU."""
    *convs, norm, _ = layers
    for conv in convs:
        assert conv.bias is None
        x = convolved(x, conv.weight, rate)
    return normalized(x, norm).clamp(min=0)


def lively(module: nn.Module) -> Any:
    """In float64 and eval mode, with batch norms that are not those of initialisation, without gradients."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (norm.bias, norm.running_mean):
                nn.init.normal_(tensor, std=0.5)
    return module.double().eval().requires_grad_(False)


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """To this part of the largest value."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()
