"""Averaged weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WarmedAverage(WeightAveraging):
    """An exponential moving average of the weights, of a decay that rises to its value: min(decay, (1 + n) / (10 + n)).

    `n` is how many updates lie behind; it is in checkpoints. So the average of a short run does not hold on to where
    the weights began.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, updates: Any) -> None:
            behind = int(updates)
            lerp = get_ema_multi_avg_fn(min(decay, (1 + behind) / (10 + behind)))  # type: ignore[no-untyped-call]
            lerp(averaged, current, updates)

        super().__init__(multi_avg_fn=average)
