"""How fast a run goes, how long it still takes, and runs whose length is a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from crispseg.training.training_data import print_lines

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


NEVER = sys.maxsize
"""As `val_check_interval` of the trainer: evaluations come when `Budget` asks for them."""

EVALUATIONS = 10
"""At most so many evaluations."""
EVALUATING = 0.1
"""Share of the time that they may take together, unless the one at the end takes more."""
MUCH = 0.25
"""Share of the time for one evaluation from which a line says so."""
LEAST = 0.1
"""Share of the time that is trained, however long the evaluation takes."""


class Budget(Callback):
    """Spreads evaluations over a given time, closer together at first, and ends the run with one within that time.

    Processes follow the clock of the first one, so all have one learning rate, and evaluate and end at one step.

    Args:
        seconds: of training and evaluating, in all sessions of the run.
        elapsed: seconds so far.
        pace: knows how long an evaluation takes.
        console: where to say that it takes much of the time.

    Attributes:
        progress: share of the training time that is over, 0 to 1; the learning rate follows it.
    """

    def __init__(self, seconds: float, elapsed: Callable[[], float], pace: Pace, console: Console) -> None:
        self.seconds, self.elapsed, self.pace, self.console = seconds, elapsed, pace, console
        self.progress = 0.0
        self.evaluations = 0  # those that are over, or were left out
        self.used_up = 0.0  # the seconds that a session came to the end of

    def left(self) -> float:
        """Seconds to the end."""
        return max(self.seconds - self.elapsed(), 0.0)

    @property
    def scheduled(self) -> int:
        """How many evaluations should be over by now, without the one at the end."""
        count = min(EVALUATIONS, int(EVALUATING * self.seconds / max(self.pace.evaluation, 1e-9)))
        return sum((number / count) ** 1.25 <= self.progress for number in range(1, count))

    def measure(self) -> None:
        """Set `progress`; it is 1 if another step would leave too little time for the evaluation at the end."""
        kept = max(self.pace.evaluations, default=self.pace.estimated) + (self.pace.a_step or 0.0)
        self.progress = min(self.elapsed() / max(self.seconds - kept, LEAST * self.seconds), 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"used_up": self.used_up}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.used_up = state_dict["used_up"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._measure_together(trainer)
        self.evaluations = self.scheduled
        trainer.should_stop = self.used_up >= self.seconds
        if self.pace.evaluation > MUCH * self.seconds:
            taken = f"an evaluation takes about {in_words(self.pace.evaluation)} of {in_words(self.seconds)}"
            line = f"{taken}; fewer val images or more minutes leave more time for training"
            print_lines(self.console, [line], "yellow")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._measure_together(trainer)
        stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        trainer.should_stop = trainer.should_stop or (stepped and self.progress == 1)
        trainer.val_check_batch = 1 if stepped and due else NEVER

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.evaluations = max(self.evaluations + 1, self.scheduled)
            self.used_up = self.seconds if trainer.should_stop else 0.0

    def _measure_together(self, trainer: L.Trainer) -> bool:
        """Set `progress` and return whether an evaluation is due, both as the first process finds it."""
        self.measure()
        due: bool
        self.progress, due = trainer.strategy.broadcast((self.progress, self.scheduled > self.evaluations))
        return due
