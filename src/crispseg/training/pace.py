"""How fast a run goes, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback

CallbackType = TypeVar("CallbackType", bound=Callback)


def callback(trainer: L.Trainer, kind: type[CallbackType]) -> CallbackType:
    """The callback of a kind that a trainer has."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(each for each in callbacks if isinstance(each, kind))


class Pace(Callback):
    """Measures steps and evaluations as a run goes on.

    The first step of a session is slower and counts in nothing. Before the first evaluation, its time is estimated from
    the sanity check, by the pixels of the images.

    Args:
        pixels: pixels that an evaluation takes in this process.
        steps: optimizer steps of the whole run; None if its length is a time.
        between: optimizer steps between two evaluations; there is one after the last step too.
        now: a clock, in seconds.
    """

    def __init__(
        self, pixels: float, steps: int | None, between: int = 1, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.pixels, self.steps, self.between, self.now = pixels, steps, between, now
        self.estimated = 0.0
        self.evaluations: list[float] = []
        self.training = 0.0  # seconds of the steps after the first one of the session
        self.waited = 0.0  # seconds of these in which they waited for their batch
        self.batches = 0  # of these steps
        self.began = self.latest = 0  # steps of the run when the session began, and now
        self.first: int | None = None  # steps of the run after the first one of the session
        self.mark = now()
        self.evaluating = False

    @property
    def evaluation(self) -> float:
        """Seconds of an evaluation with all that is written after it; 0 if none is known."""
        return sum(self.evaluations) / len(self.evaluations) if self.evaluations else self.estimated

    @property
    def a_step(self) -> float | None:
        """Seconds of a step; None before two were made."""
        return self.training / (self.latest - self.first) if self.first and self.latest > self.first else None

    @property
    def batches_a_second(self) -> float | None:
        """None before there were two steps."""
        return self.batches / self.training if self.training else None

    @property
    def waiting(self) -> float | None:
        """Share of the training time spent waiting for data; None before there were two steps."""
        return self.waited / self.training if self.training else None

    def left(self) -> float | None:
        """Seconds to the end of the run; None before they are known."""
        if self.a_step is None or self.steps is None:
            return None
        to_come = -(-self.steps // self.between) - self.latest // self.between if self.latest < self.steps else 0
        return self.a_step * (self.steps - self.latest) + self.evaluation * to_come

    def state_dict(self) -> dict[str, Any]:
        return {"evaluation": self.evaluation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.estimated = state_dict["evaluation"]

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._lap()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.sanity_checking:  # the fastest image counts: the first of a size is slower
            height, width = batch[0].shape[-2:]
            seconds = self._lap() * self.pixels / (height * width)
            self.estimated = min(seconds, self.estimated or seconds)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._lap()
        self.began = self.latest = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        seconds = self._lap()
        if self.evaluating:  # what follows an evaluation is over too
            self.evaluations.append(seconds)
        elif self.first is not None:
            self.training += seconds
            self.waited += seconds
        self.evaluating = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        seconds = self._lap()
        self.latest = trainer.global_step
        if self.first is not None:
            self.training += seconds
            self.batches += 1
        elif self.latest > self.began:
            self.first = self.latest

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._lap()
            self.evaluating = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:  # what follows it, such as telling the time left, is still to come
            self.estimated = self.now() - self.mark

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self.mark = self.mark, self.now()
        return self.mark - before


def in_words(seconds: float) -> str:
    """A duration in its two largest units: "2 h 05 min", "3 min 10 s" or "45 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"
