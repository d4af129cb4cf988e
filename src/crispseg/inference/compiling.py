"""torch.compile for images of any size."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch._dynamo.config as dynamo
from timm.layers import padding
from torch import Tensor

from crispseg.errors import CrispsegError

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
