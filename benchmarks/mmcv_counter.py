"""The counter of MMCV, by which MMSegmentation and AGLN's Table VIII count multiply-adds: it hooks modules."""

from __future__ import annotations

from typing import Any

from torch import nn

from crispseg.benchmarking.counting import forward_on_meta

PER_INPUT = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PER_OUTPUT = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)


def count_in_modules(model: nn.Module, height: int, width: int, in_chans: int = 3) -> int:
    """What a counter that hooks modules sees of the same pass, such as MMCV's, by which MMSegmentation counts.

    Convolutions and linear layers with their biases, 2 for each value that a batch norm is given, 1 for each value
    that a ReLU gives and that a pooling is given. Whatever is no module counts nothing: products of two features,
    interpolation, sums.
    """
    total = 0

    def add(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += output.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * args[0].numel()
        elif isinstance(module, PER_INPUT):
            total += args[0].numel()
        elif isinstance(module, PER_OUTPUT):
            total += output.numel()

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    try:
        forward_on_meta(model, height, width, in_chans)
    finally:
        for hook in hooks:
            hook.remove()
    return total
