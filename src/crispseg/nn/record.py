"""`record` shows what a network computes on the way, `alter` what it would do with something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from crispseg.errors import CrispsegError, did_you_mean

Change: TypeAlias = Callable[[Tensor], Tensor]
"""A quantity → what the network goes on with, of the same shape."""


class Tap(nn.Module):
    """Gives a tensor a name that `record` can see: `self.flow = Tap()` and, in `forward`, `flow = self.flow(flow)`.

    It returns its input, holds nothing and leaves no trace in a state dict, an exported or a compiled graph.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the intermediate quantities of the latest forward pass.

    Works on any module that holds crispseg's parts, also inside other people's networks; costs nothing outside.

    Yields:
        A dict that fills as the model runs, from the tap's path in the model to its detached tensor.

    Example:
        >>> with crispseg.record(model) as seen:  # doctest: +SKIP
        ...     model(images)
        >>> seen["decoder.fuses.0.flow"].shape  # doctest: +SKIP
        torch.Size([1, 2, 256, 512])
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        seen[name] = output.detach()

    with _hooked({tap: partial(keep, name) for name, tap in taps(model).items()}):
        yield seen


@contextmanager
def alter(model: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Change intermediate quantities of every forward pass in the block.

    A `record` inside the block sees them changed, one around it as they were.

    Args:
        model: any module that holds crispseg's parts, not compiled.
        changes: from the paths of `taps` to what is done to their tensors.

    Raises:
        CrispsegError: a path that is not there.

    Example:
        >>> with crispseg.alter(model, {"decoder.fuses.0.flow": torch.zeros_like}):  # doctest: +SKIP
        ...     logits = model(images)
    """
    found = taps(model)
    for name in changes:
        if name not in found:
            raise CrispsegError(f"the model has no quantity '{name}'{did_you_mean(name, found)}")

    def replace(change: Change, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return change(output).to(output.dtype)

    with _hooked({found[name]: partial(replace, change) for name, change in changes.items()}):
        yield


def taps(model: nn.Module) -> dict[str, Tap]:
    """The quantities that can be seen and changed, by their path in the model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Tap)}


_Hook: TypeAlias = Callable[[nn.Module, Any, Tensor], Tensor | None]


@contextmanager
def _hooked(hooks: Mapping[Tap, _Hook]) -> Iterator[None]:
    with ExitStack() as stack:
        for tap, hook in hooks.items():
            stack.enter_context(tap.register_forward_hook(hook))
        yield
