"""`record` collects intermediate quantities of a network, and `alter` changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from crispseg.errors import CrispsegError, did_you_mean

Change: TypeAlias = Callable[[Tensor], Tensor]
"""Function from a quantity to a replacement of the same shape."""


class Tap(nn.Identity):
    """Name a tensor for `record`: write `self.flow = Tap()` and, in `forward`, `flow = self.flow(flow)`.

    It returns its input, has no state, and does not appear in a state dict, an exported or a compiled graph.
    """


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the intermediate quantities of the latest forward pass.

    It works on any module with crispseg's parts, also inside other networks. It costs no time outside the block.

    Yields:
        A dict from each tap's path in the model to its detached tensor; it fills as the model runs.

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

    A `record` inside the block collects changed values, and a `record` around it original ones.

    Args:
        model: any uncompiled module with crispseg's parts.
        changes: changes of tensors, by the paths of `taps`.

    Raises:
        CrispsegError: a path does not exist.

    Example:
        >>> with crispseg.alter(model, {"decoder.fuses.0.flow": torch.zeros_like}):  # doctest: +SKIP
        ...     logits = model(images)
    """
    quantities = taps(model)
    for name in changes:
        if name not in quantities:
            raise CrispsegError(f"the model has no quantity '{name}'{did_you_mean(name, quantities)}")

    def replace(change: Change, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return change(output).to(output.dtype)

    with _hooked({quantities[name]: partial(replace, change) for name, change in changes.items()}):
        yield


def taps(model: nn.Module) -> dict[str, Tap]:
    """Return the quantities that `record` collects and `alter` changes, by their path in the model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Tap)}


@contextmanager
def _hooked(hooks: Mapping[Tap, Callable[[nn.Module, Any, Tensor], Tensor | None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for tap, hook in hooks.items():
            stack.enter_context(tap.register_forward_hook(hook))
        yield
