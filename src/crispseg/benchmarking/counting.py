"""Parameters and multiply-adds of a model, as the papers count them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

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
