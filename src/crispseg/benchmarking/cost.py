"""What a network costs: parameters, multiply-adds as the papers count them, and latencies measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import crispseg.nn.sampling  # noqa: F401 (defines the sampled products)


@register_flop_formula(torch.ops.crispseg.sampled_dot)
def _sampled_dot_flops(query: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    """C multiply-adds for each point of each pixel; reading between pixels is interpolation."""
    return 2 * out_shape.numel() * query[1]


@register_flop_formula(torch.ops.crispseg.sampled_sum)
def _sampled_sum_flops(weights: torch.Size, source: torch.Size, *_args: Any, **_options: Any) -> int:
    return 2 * weights.numel() * source[1]


def _linear_flops(_x: torch.Size, weight: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    return 2 * out_shape.numel() * weight[1]


class _FlatLinear(TorchFunctionMode):
    """Linear layers of rows alone: PyTorch turns others into `bmm`, which is a product of two features elsewhere."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and args[0].ndim > 2:
            rows, *others = args
            flat: Tensor = func(rows.flatten(0, -2), *others, **(kwargs or {}))  # (rows, channels)
            return flat.reshape(*rows.shape[:-1], -1)
        return func(*args, **(kwargs or {}))


def count_parameters(model: nn.Module) -> int:
    """Parameters, without training-only heads."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("auxiliary_heads."))


ATTENTION = (
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
    torch.ops.crispseg.sampled_dot,
    torch.ops.crispseg.sampled_sum,
)
"""Products of two features, not of a feature with a weight."""


def count_multiply_adds(model: nn.Module, height: int, width: int, in_chans: int = 3, *, attention: bool = True) -> int:
    """Multiply-adds of one forward pass on one image in eval mode (a paper's "FLOPs"); interpolation is not counted.

    Runs on meta tensors, so the model's own tensors and the machine's speed do not matter.

    Args:
        model: the model.
        height, width, in_chans: of the image.
        attention: count products of two features too; the counters of some papers see those with weights only.
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.linear: _linear_flops})
    forward_on_meta(model, height, width, in_chans, counter)
    counts = counter.get_flop_counts().get("Global", {})
    return int(sum(flops for operator, flops in counts.items() if attention or operator not in ATTENTION)) // 2


def forward_on_meta(
    model: nn.Module, height: int, width: int, in_chans: int, counter: AbstractContextManager[Any] | None = None
) -> None:
    """Run one image through the model in eval mode, shapes only."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    images = torch.empty(1, in_chans, height, width, device="meta")
    was_training = model.training
    try:
        model.eval()
        with torch.inference_mode(), counter or nullcontext(), _FlatLinear():
            torch.func.functional_call(model, meta, (images,))
    finally:
        model.train(was_training)


T = TypeVar("T")


class Latency(NamedTuple):
    """Time of one stage, in milliseconds."""

    median: float
    p95: float


class Stopwatch:
    """Calls functions and keeps the seconds that each stage takes in `laps`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, float] = {}

    def __call__(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function and wait until the device has finished."""
        start = self._now()
        result = function(*args)
        self.laps[stage] = self._now() - start
        return result

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def take_turns(
    turns: Sequence[Callable[[Stopwatch], None]],
    rounds: Iterable[int],
    *,
    warmup: int,
    device: torch.device | None = None,
) -> list[dict[str, Latency]]:
    """Measure all contenders in every round, so that a machine that slows down slows all of them.

    Args:
        turns: one measurement of each contender.
        rounds: indices of the rounds, from 0.
        warmup: number of first rounds that do not count.
        device: device that is synchronised; the CPU by default.

    Returns:
        the latency of each stage, one dict a contender.
    """
    kept: list[list[dict[str, float]]] = [[] for _ in turns]
    for index in rounds:
        for turn, laps in zip(turns, kept, strict=True):
            watch = Stopwatch(device or torch.device("cpu"))
            turn(watch)
            if index >= warmup:
                laps.append(watch.laps)
    return [
        {stage: Latency(*np.percentile([1000 * lap[stage] for lap in laps], (50, 95)).tolist()) for stage in laps[0]}
        for laps in kept
    ]
