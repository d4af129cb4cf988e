"""Time of the stages of training: waiting for data, forward, backward and evaluation."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

REMEDIES = {  # stage → what makes it shorter
    "reading": "raise workers, or save smaller image files",
    "augmenting": "raise workers",
    "evaluation": "raise val_every",
}
LONG = 0.25  # share of the time from which advice is printed, in runs of at least
LONG_RUN = 60.0  # seconds


class StageTimes(Callback):
    """Measure how long training waits for data, computes and evaluates.

    The backward stage includes the optimizer's step.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.latest = 0.0  # end of the latest stage

    def end(self, stage: str) -> None:
        """Add the time since the end of the latest stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self.latest
        self.latest = now

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.clear()
        self.latest = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.end("data")

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.end("forward")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.end("backward")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.end("data")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.end("evaluation")

    def lines(self, loading: Tensor, on_cuda: bool) -> list[str]:
        """Return the share of each stage, and advice for long ones.

        The time of waiting for data is divided by `loading`, the seconds of reading and augmenting in all workers. A
        GPU computes forward and backward while Python waits elsewhere, so that only their sum is known.
        """
        reading, augmenting = (loading / loading.sum().clamp(min=1e-9) * self.seconds["data"]).tolist()
        stages = {"reading": reading, "augmenting": augmenting}
        if on_cuda:
            stages["forward and backward"] = self.seconds["forward"] + self.seconds["backward"]
        else:
            stages |= {name: self.seconds[name] for name in ("forward", "backward")}
        stages["evaluation"] = self.seconds["evaluation"]
        total = sum(stages.values()) or 1.0
        shares = {name: seconds / total for name, seconds in stages.items()}
        table = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        long = [name for name in REMEDIES if shares[name] >= LONG and total >= LONG_RUN]
        return [f"time: {table}", *(f"{name} takes {shares[name]:.0%}: {REMEDIES[name]}" for name in long)]
