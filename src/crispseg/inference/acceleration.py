"""Faster networks: batch norms folded into convolutions, and torch.compile for images of any size."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from crispseg.backbones.timm_networks import LeanConv2dSame
from crispseg.compat import whole_number_padding

Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result")

# Exact types, because a subclass may change its weight, such as standardise it.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame, LeanConv2dSame)

MERGE_ERROR = 1e-3  # largest error as a share of the largest output; rounding stays far below, a wrong merge does not


@torch.no_grad()
def fold_batch_norms(model: Model, example: Tensor, run: Callable[[Model, Tensor], Any] | None = None) -> Model:
    """Copy a model in eval mode, with every batch norm that directly follows a convolution merged into it.

    One run records the order of layers, since timm's padding cannot be traced. Batch norms are kept if the copy would
    compute something else, for example because other layers also read the output of a convolution.

    Args:
        model: model, which is not changed.
        example: input on the model's device to compare the copy with the model; it must not be constant.
        run: function of a model and the example that returns the outputs to compare; by default a call.
    """
    folded = copy.deepcopy(model).eval()
    outputs_of = run or (lambda model, example: model(example))
    pairs, expected = following_norms(folded, lambda: outputs_of(folded, example))
    for norm, conv in pairs.items():
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
    for name, module in list(folded.named_modules(remove_duplicate=False)):
        if module in pairs:
            # timm's norms end in an activation.
            activation = nn.Sequential(module.drop, module.act) if hasattr(module, "act") else nn.Identity()
            folded.set_submodule(name, activation.eval())
    outputs = zip(tensors_of(outputs_of(folded, example)), tensors_of(expected), strict=True)
    is_same = all((output - before).abs().max() <= MERGE_ERROR * before.abs().max() for output, before in outputs)
    return folded if is_same else copy.deepcopy(model).eval()


def following_norms(model: nn.Module, run: Callable[[], Any]) -> tuple[dict[_BatchNorm, Any], Any]:
    """Return the batch norms that directly follow a convolution in a run, with these convolutions, and its outputs.

    Both are used only once.
    """
    runs: Counter[nn.Module] = Counter()
    made: dict[int, tuple[Any, Tensor]] = {}  # keeps the tensors alive, so that ids stay unique
    normalised: dict[_BatchNorm, Tensor] = {}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        runs[module] += 1
        if type(module) in CONVOLUTIONS:
            made[id(output)] = module, output
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            normalised[module] = args[0]

    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(module.register_forward_hook(note))
        outputs = run()
    pairs = {norm: made[id(values)][0] for norm, values in normalised.items() if id(values) in made}
    return {norm: conv for norm, conv in pairs.items() if runs[conv] == runs[norm] == 1}, outputs


def tensors_of(tree: Any) -> list[Tensor]:
    """Return the tensors in a tree of outputs."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def compiled(function: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
    """Return a function of images `(N, C, H, W)`, compiled at its first call for all heights and widths."""
    ready = torch.compile(function, dynamic=True)

    def call(images: Tensor) -> Result:
        with whole_number_padding():
            return ready(images)

    return call
