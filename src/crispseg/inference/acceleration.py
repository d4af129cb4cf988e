"""The same network in fewer steps: batch norms merged into convolutions, and torch.compile for images of any size."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch._dynamo.config as dynamo
from timm.layers import Conv2dSame, padding
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crispseg.backbones.timm_networks import LeanConv2dSame
from crispseg.errors import CrispsegError

Model = TypeVar("Model", bound=nn.Module)

# Exact types: a subclass may do more with its weight than convolve, such as standardise it.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame, LeanConv2dSame)

TOLERANCE = 1e-3
"""Largest error, as a share of the largest output: rounding stays far below, a wrong merge does not."""


@torch.no_grad()
def fold_batch_norms(model: Model, example: Tensor, run: Callable[[Model, Tensor], Any] | None = None) -> Model:
    """Copy a model, in eval mode, with every batch norm that directly follows a convolution merged into it.

    One run shows what follows what, since timm's padding cannot be traced. A batch norm is merged if its input is the
    output of a convolution, nothing else reads that output, and both run once.

    Args:
        model: stays as it is.
        example: an input on the model's device; not constant, because the copy is compared with the model on it.
        run: gives of a model and the example the outputs to compare, by default those of a call.

    Raises:
        RuntimeError: the copy does not compute what the model computes.
    """
    folded = copy.deepcopy(model).eval()
    run = run or (lambda model, example: model(example))
    with _Observed(folded) as seen:
        expected = _tensors(run(folded, example))
    pairs = seen.pairs(expected)
    for norm, conv in pairs.items():
        _merge(conv, norm)
    for name, module in list(folded.named_modules(remove_duplicate=False)):
        if module in pairs:
            # timm's norms end in an activation.
            rest = nn.Sequential(module.drop, module.act) if hasattr(module, "act") else nn.Identity()
            folded.set_submodule(name, rest.eval())
    for before, after in zip(expected, _tensors(run(folded, example)), strict=True):
        error, largest = (after - before).abs().max().item(), before.abs().max().item()
        if not error <= TOLERANCE * largest:
            raise RuntimeError(f"merging {len(pairs)} batch norms changed outputs of up to {largest:g} by {error:g}")
    return folded


class _Observed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records in the block which convolutions and batch norms run, and how many operations read each tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: Counter[int] = Counter()
        self.runs: Counter[nn.Module] = Counter()
        # Both keep their tensors alive, so that an id stays the id of one tensor.
        self.made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
        self.taken: dict[_BatchNorm, Tensor] = {}
        self.handles = []
        for module in model.modules():
            if type(module) in CONVOLUTIONS:
                self.handles.append(module.register_forward_hook(self._after_conv))
            elif isinstance(module, _BatchNorm) and module.running_mean is not None:
                self.handles.append(module.register_forward_pre_hook(self._before_norm))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self.handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads.update(map(id, _tensors((args, kwargs))))
        return func(*args, **(kwargs or {}))

    def _after_conv(self, conv: nn.Conv2d, _args: Any, output: Tensor) -> None:
        self.runs[conv] += 1
        self.made[id(output)] = conv, output
        self.reads[id(output)] = 0  # those of an earlier tensor that had this id

    def _before_norm(self, norm: _BatchNorm, args: tuple[Tensor]) -> None:
        self.runs[norm] += 1
        self.taken[norm] = args[0]

    def pairs(self, outputs: list[Tensor]) -> dict[_BatchNorm, nn.Conv2d]:
        """The convolution of each batch norm that can be merged; outputs of the model are read by others."""
        self.reads.update(map(id, outputs))
        found = {}
        for norm, values in self.taken.items():
            conv, _ = self.made.get(id(values), (None, None))
            if conv is not None and self.reads[id(values)] == self.runs[conv] == self.runs[norm] == 1:
                found[norm] = conv
        return found


def _merge(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """γ (W x + b - μ) / √(σ² + ε) + β as one convolution, computed in float64 on the CPU."""
    values = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    w, b, mean, var, gamma, beta = (None if value is None else value.to("cpu", torch.float64) for value in values)
    assert w is not None and mean is not None and var is not None
    weight, bias = fuse_conv_bn_weights(w, b, mean, var, norm.eps, gamma, beta)
    # New parameters, since the old ones may be shared with another convolution.
    conv.weight, conv.bias = (nn.Parameter(value.to(conv.weight), requires_grad=False) for value in (weight, bias))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


Result = TypeVar("Result")

RECOMPILE_LIMIT = 64
"""Graphs that PyTorch keeps of all models of a process; by default 8, after which it does not compile."""

_patching = threading.RLock()


def compiled(function: Callable[[Tensor], Result], device: torch.device) -> Callable[[Tensor], Result]:
    """A function of images `(N, C, H, W)`, compiled at its first call for all heights and widths.

    It computes the same but for rounding. PyTorch compiles again for one image and for several, and for images of a few
    thousand pixels, which it convolves otherwise. Calls from several threads take turns.

    Args:
        function: such as `model.coarse`; of a model whose norms are folded and whose layout is chosen.
        device: of the images.

    Raises:
        CrispsegError: there is no compiler for C++, which PyTorch needs on a CPU.
    """
    usual = "clang++" if sys.platform == "darwin" else "g++"
    compiler = shlex.split(os.environ.get("CXX") or usual)[0]  # as PyTorch chooses it
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise CrispsegError(
            f"compile needs a C++ compiler on a CPU, and there is no {compiler}; install it, or leave compile out"
        )
    ready = torch.compile(function, dynamic=True)

    def call(images: Tensor) -> Result:
        with _patching, dynamo.patch(recompile_limit=RECOMPILE_LIMIT), whole_number_padding():
            return ready(images)

    return call


@contextmanager
def whole_number_padding() -> Iterator[None]:
    """In the block timm's "same" padding, of its tf_ networks, is a formula that tracers understand for all sizes."""
    before = padding.get_same_padding
    padding.get_same_padding = _same_padding
    try:
        yield
    finally:
        padding.get_same_padding = before


def _same_padding(length: Any, kernel_size: int, stride: int, dilation: int) -> Any:
    """In whole numbers: `math.ceil` would ask for the example's size."""
    outputs, reach = (length + stride - 1) // stride, (kernel_size - 1) * dilation + 1
    missing = (outputs - 1) * stride + reach - length
    # With a maximum in them, sizes would grow into formulas that the tracer no longer understands.
    return missing if reach >= stride else torch.sym_max(missing, 0)
