"""Custom code that a training run calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crispseg.data.transforms import CustomTransform
from crispseg.training.losses import CustomLoss

if TYPE_CHECKING:
    from lightning import Callback


@dataclass(frozen=True)
class Hooks:
    """Custom code of a run. It is not in `config.yaml`, so a resumed run needs it again.

    Args:
        callbacks: further callbacks of Lightning's trainer.
        transform: augments training samples before crispseg's own augmentation; see `CustomTransform`.
        loss: replaces the losses of the settings; see `CustomLoss`.
    """

    callbacks: Sequence[Callback] = ()
    transform: CustomTransform | None = None
    loss: CustomLoss | None = None
