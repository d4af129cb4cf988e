"""Networks without random weights, for weights that are loaded next."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

RANDOM = (torch.ops.aten.rand.default, torch.ops.aten.randn.default)


class Uninitialised(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context in which nothing is drawn from a generator; random numbers are 0.

    They have a value because `torch.nn.init.trunc_normal_` draws until all numbers are in its range. The program's
    generator stays as it is, and networks are built in half of the time. A mode affects only its own thread;
    `torch.random.fork_rng` would also undo what other threads draw meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RANDOM:
            return torch.zeros(*args, **kwargs)
        if any(argument.name == "generator" for argument in func._schema.arguments):
            return args[0].zero_()  # of a function that fills a tensor, such as `normal_`
        return func(*args, **kwargs)
