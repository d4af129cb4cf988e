"""Cost of networks: parameters, multiply-adds as in papers, and latencies measured in turns."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import crispseg.nn.sampling  # noqa: F401 (defines the sampled products)
from crispseg.models.saving import TRAINING_ONLY


@register_flop_formula(torch.ops.crispseg.sampled_dot)
def _sampled_dot_flops(query: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    """Return C multiply-adds for each point of each pixel, without interpolation."""
    return 2 * out_shape.numel() * query[1]


@register_flop_formula(torch.ops.crispseg.sampled_sum)
def _sampled_sum_flops(weights: torch.Size, source: torch.Size, *_args: Any, **_options: Any) -> int:
    return 2 * weights.numel() * source[1]


@register_flop_formula([torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only])
def _embedding_bag_flops(rows: torch.Size, indices: torch.Size, *_args: Any, **_options: Any) -> int:
    """Return C multiply-adds for each summed row of channels."""
    return 2 * indices.numel() * rows[1]


def _linear_flops(_x: torch.Size, weight: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    return 2 * out_shape.numel() * weight[1]


class _FlatLinear(TorchFunctionMode):
    """Mode that flattens inputs of linear layers to rows, since `bmm` counts as a product of two features."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and args[0].ndim > 2:
            rows, *others = args
            flat: Tensor = func(rows.flatten(0, -2), *others, **(kwargs or {}))  # (rows, channels)
            return flat.reshape(*rows.shape[:-1], -1)
        return func(*args, **(kwargs or {}))


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, without training-only heads."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(TRAINING_ONLY))


ATTENTION = (
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
    torch.ops.aten._embedding_bag,
    torch.ops.aten._embedding_bag_forward_only,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
    torch.ops.crispseg.sampled_dot,
    torch.ops.crispseg.sampled_sum,
)
"""Products of two features, not of a feature and a weight."""


def count_multiply_adds(model: nn.Module, height: int, width: int, in_chans: int = 3, *, attention: bool = True) -> int:
    """Count multiply-adds of a forward pass on one image in eval mode ("FLOPs" in papers), without interpolation.

    The function uses meta tensors, so it needs neither the model's tensors nor a fast machine.

    Args:
        height, width, in_chans: shape of the image.
        attention: also count products of two features; the counters of some papers count only those with weights.
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.linear: _linear_flops})
    meta = {key: tensor.to("meta") for key, tensor in (*model.named_parameters(), *model.named_buffers())}
    was_training = model.training
    try:
        model.eval()
        with torch.inference_mode(), counter, _FlatLinear():
            torch.func.functional_call(model, meta, (torch.empty(1, in_chans, height, width, device="meta"),))
    finally:
        model.train(was_training)
    counts = counter.get_flop_counts().get("Global", {})
    return int(sum(flops for operator, flops in counts.items() if attention or operator not in ATTENTION)) // 2


@dataclass(frozen=True)
class Latency:
    """Time of one stage, in milliseconds."""

    median: float
    p95: float


def take_turns(
    contenders: Sequence[Mapping[str, Callable[[], Any]]],
    repeats: int,
    warmup: int,
    device: torch.device,
    console: Console | None = None,
) -> list[dict[str, Latency]]:
    """Time the stages of all contenders in every round, so that a slow machine affects all of them equally.

    Each contender has stages by name. `Conditions` explains `repeats` and `warmup`.
    """
    milliseconds: list[dict[str, list[float]]] = [defaultdict(list) for _ in contenders]
    # Without a drawing thread, which would disturb the measurement.
    with Progress(console=console or Console(quiet=True), auto_refresh=False) as progress:
        for index in progress.track(range(warmup + repeats), description="Measuring"):
            for stages, times in zip(contenders, milliseconds, strict=True):
                for stage, function in stages.items():
                    start = time.perf_counter()
                    function()
                    if device.type != "cpu":
                        torch.accelerator.synchronize(device)
                    if index >= warmup:
                        times[stage].append(1000 * (time.perf_counter() - start))
    return [latencies(times) for times in milliseconds]


def latencies(milliseconds: Mapping[str, Sequence[float]]) -> dict[str, Latency]:
    """Return the latency of each stage from all its times."""
    return {stage: Latency(*np.percentile(times, (50, 95)).tolist()) for stage, times in milliseconds.items()}
