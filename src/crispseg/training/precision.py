"""Bfloat16 where it helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.training.config import TrainConfig


@contextmanager
def float32_depthwise(model: nn.Module) -> Iterator[None]:
    """Under CPU autocast, run the depthwise convolutions of `model` in float32.

    Their bfloat16 backward pass on a CPU takes three to eight times as long as the float32 one (PyTorch 2.15,
    AVX-512 with bf16); without this, SFNet on `tf_efficientnet_lite0` trains at half the speed.
    """
    outer: list[bool] = []

    def leave_autocast(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outer.append(torch.is_autocast_enabled("cpu"))
        torch.set_autocast_enabled("cpu", False)
        return tuple(arg.float() for arg in args)

    def return_to_autocast(_module: nn.Module, _args: Any, _output: Any) -> None:
        torch.set_autocast_enabled("cpu", outer.pop())

    handles = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            handles.append(module.register_forward_pre_hook(leave_autocast))
            handles.append(module.register_forward_hook(return_to_autocast, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_cuda(config: TrainConfig) -> bool:
    """Whether the run will be on a CUDA device."""
    return config.accelerator != "cpu" and torch.cuda.is_available()


def has_bf16(cpuinfo: str | Path = "/proc/cpuinfo", *, cuda: bool = False) -> bool | None:
    """Whether there are bfloat16 instructions, without which PyTorch emulates them, slowly. None if it is not known.

    Args:
        cpuinfo: where Linux says what processors can; elsewhere nothing is known.
        cuda: whether CUDA devices are meant instead of the processor.
    """
    if cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    words = set(Path(cpuinfo).read_text(encoding="utf-8").split()) if Path(cpuinfo).is_file() else set()
    if not words & {"flags", "Features"}:
        return None
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
