"""Parameters and multiply-adds of a model, as the papers count them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Parameters, without training-only heads."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("auxiliary_heads."))


def count_multiply_adds(model: nn.Module, height: int, width: int, in_chans: int = 3) -> int:
    """Multiply-adds of one forward pass on one image in eval mode (a paper's "FLOPs"); interpolation is not counted.

    Runs on meta tensors, so the model's own tensors and the machine's speed do not matter.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    images = torch.empty(1, in_chans, height, width, device="meta")
    was_training = model.training
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with torch.inference_mode(), counter:
            torch.func.functional_call(model, meta, (images,))
    finally:
        model.train(was_training)
    return int(counter.get_total_flops()) // 2
