"""Parameters and multiply-adds of a model, as the papers count them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import crispseg.nn.sampling  # noqa: F401 (defines the sampled products)


@register_flop_formula(torch.ops.crispseg.sampled_dot)
def _sampled_dot_flops(query: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    """C multiply-adds for each point of each pixel; reading between pixels is interpolation."""
    return 2 * out_shape.numel() * query[1]


@register_flop_formula(torch.ops.crispseg.sampled_sum)
def _sampled_sum_flops(weights: torch.Size, source: torch.Size, *_args: Any, **_options: Any) -> int:
    return 2 * weights.numel() * source[1]


def _linear_flops(x: torch.Size, weight: torch.Size, *_args: Any, out_shape: torch.Size, **_options: Any) -> int:
    """Counted as it is called: PyTorch turns some of them into `bmm`, which is a product of two features elsewhere."""
    return 2 * out_shape.numel() * weight[1]


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
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    images = torch.empty(1, in_chans, height, width, device="meta")
    was_training = model.training
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.linear: _linear_flops})
    try:
        model.eval()
        with torch.inference_mode(), counter:
            torch.func.functional_call(model, meta, (images,))
    finally:
        model.train(was_training)
    counts = counter.get_flop_counts().get("Global", {})
    return int(sum(flops for operator, flops in counts.items() if attention or operator not in ATTENTION)) // 2
