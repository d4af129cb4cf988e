"""Looking at what a network computes on the way, without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


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

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            seen[name] = output.detach()

        return hook

    taps = [(name, module) for name, module in model.named_modules() if isinstance(module, Tap)]
    handles = [tap.register_forward_hook(keep(name)) for name, tap in taps]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
