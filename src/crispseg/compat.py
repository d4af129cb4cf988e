"""Changes to other libraries, each with the version that needs it.

tests/test_compat.py has a test for each that fails when the change is no longer needed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.data._utils import signal_handling


def whole_number_padding() -> AbstractContextManager[Any]:
    """Replace timm's "same" padding of tf_ networks in the block by a formula that tracers support for all sizes.

    timm 1.0.31 rounds by `math.ceil`, which fixes the example's size.
    """
    from timm.layers import padding  # imported here, because data workers do not need it

    return mock.patch.object(padding, "get_same_padding", _same_padding)


def _same_padding(length: Any, kernel_size: int, stride: int, dilation: int) -> Any:
    outputs, reach = (length + stride - 1) // stride, (kernel_size - 1) * dilation + 1
    missing = (outputs - 1) * stride + reach - length
    # A maximum would make sizes too complex for the tracer.
    return missing if reach >= stride else torch.sym_max(missing, 0)


def features_of_any_size() -> AbstractContextManager[Any]:
    """Let traced graphs accept features of one pixel, which PyTorch 2.14 refuses by default."""
    import torch.fx.experimental._config as tracing

    patch: AbstractContextManager[Any] = tracing.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patch


def plain_window_attention(network: nn.Module) -> None:
    """Compute the attention within windows of Twins, whose tensors have five axes, without the fused operator.

    PyTorch 2.14 exports `scaled_dot_product_attention` to ONNX for four axes only.
    """
    from timm.models.twins import LocallyGroupedAttn  # imported here, because data workers do not need it

    for part in network.modules():
        if isinstance(part, LocallyGroupedAttn):
            part.fused_attn = False


def no_errors_of_ended_workers() -> None:
    """Keep PyTorch from raising an error when a data worker ends.

    The handler of PyTorch 2.14 raises it anywhere in this process, even in C++. Without the handler, as in threads and
    on Windows, the loader checks every five seconds whether the worker is alive.
    """
    signal_handling._SIGCHLD_handler_set = True


@functools.cache
def openvino_core() -> Any:
    """Return the one `openvino.Core` of the process.

    Each Core of OpenVINO 2026.4 sets a signal stack of the thread and removes it when the Core is deleted. If two Cores
    are not deleted in reverse order, the thread keeps a freed stack, and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


@contextmanager
def one_openvino_core() -> Iterator[Any]:
    """Make NNCF 3.4, which creates further Cores, use that of `openvino_core` in the block."""
    import openvino

    core = openvino_core()  # created before it replaces its class
    with mock.patch.object(openvino, "Core", lambda: core):
        yield core
