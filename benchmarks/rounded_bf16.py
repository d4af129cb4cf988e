"""bf16 for CPUs without bf16 instructions, faster there than PyTorch's own emulation.

    crispseg train benchmarks/camvid.yaml --plugins benchmarks/rounded_bf16.py ...

Such instructions multiply bfloat16 numbers and add the products in float32. Here float32 operators do the same, on
operands that are bfloat16 numbers, and their results are rounded to bfloat16. Sums are in another order than with the
instructions, as they are from processor to processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PRODUCTS = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
}
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class RoundedBf16(TorchDispatchMode):
    """Products of bfloat16 tensors on the CPU, in float32, rounded once."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in PRODUCTS and func.has_kernel_for_dispatch_key(COMPOSITE):
            with self:  # in inference mode nothing before has taken it apart
                return func.decompose(*args, **(kwargs or {}))
        if func not in PRODUCTS or args[0].dtype != torch.bfloat16 or args[0].device.type != "cpu":
            return func(*args, **(kwargs or {}))
        wide = tree_map_only(Tensor, Tensor.float, args)
        return tree_map_only(Tensor, Tensor.bfloat16, func(*wide, **(kwargs or {})))


RoundedBf16().__enter__()  # for the whole process
