"""How fast a run goes, how long it still takes, and runs whose length is a time."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer

CallbackType = TypeVar("CallbackType", bound=Callback)


def callback(trainer: L.Trainer, kind: type[CallbackType]) -> CallbackType:
    """The callback of a kind that a trainer has."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(each for each in callbacks if isinstance(each, kind))


class Pace(Callback):
    """Measures batches, without the first one of a session, and evaluations, first by the sanity check.

    The length of the whole run is a number of optimizer steps or of seconds. The timer comes before it in the trainer.

    Attributes:
        evaluation: seconds of the latest evaluation.
        a_batch: seconds of a batch, with what comes between two of them; 0 before there were two.
    """

    def __init__(self, timer: Timer, steps: int | None, seconds: float | None) -> None:
        self.timer, self.steps, self.seconds = timer, steps, seconds
        self.evaluation = self.a_batch = 0.0
        self.batches = 0
        self.first = 0.0  # when the first one ended

    def left(self, trainer: L.Trainer) -> str:
        """The time to the end of the run, such as "0:13:49"; "?" before it is known."""
        if self.seconds is not None:
            seconds = self.seconds - self.timer.time_elapsed()
        elif self.a_batch and self.steps is not None:
            seconds = self.a_batch * trainer.accumulate_grad_batches * (self.steps - trainer.global_step)
        else:
            return "?"
        return str(timedelta(seconds=max(round(seconds), 0)))

    def state_dict(self) -> dict[str, Any]:
        return {"evaluation": self.evaluation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluation = state_dict["evaluation"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        now = time.monotonic()
        self.first = self.first if self.batches else now
        self.a_batch = (now - self.first) / max(self.batches, 1)
        self.batches += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        share = trainer.num_sanity_val_batches[0] / trainer.num_val_batches[0] if trainer.sanity_checking else 1
        self.evaluation = self.timer.time_elapsed("validate") / share


NEVER = sys.maxsize
"""As `val_check_interval` of the trainer: evaluations come when `Budget` asks for them."""

EVALUATIONS = 10  # at most
EVALUATING = 0.1  # share of the time that they may take together, unless the one at the end takes more
LEAST = 0.1  # share of the time that is trained, however long the evaluation takes


class Budget(Callback):
    """Spreads evaluations over a given time, closer together at first, and ends the run with one within that time.

    All processes follow the clock of the first one.

    Attributes:
        progress: share of the training time that is over, 0 to 1; the learning rate follows it.
    """

    def __init__(self, seconds: float, pace: Pace) -> None:
        self.seconds, self.pace = seconds, pace
        self.progress = 0.0
        self.evaluations = 0  # those that are over, or were left out
        self.used_up = 0.0  # the seconds that a session came to the end of

    def state_dict(self) -> dict[str, Any]:
        return {"used_up": self.used_up}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.used_up = state_dict["used_up"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluations = self._measured(trainer)
        trainer.should_stop = self.used_up >= self.seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._measured(trainer) > self.evaluations
        stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        trainer.should_stop = trainer.should_stop or (stepped and self.progress == 1)
        trainer.val_check_batch = 1 if stepped and due else NEVER

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.evaluations = max(self.evaluations + 1, self._measured(trainer))
            self.used_up = self.seconds if trainer.should_stop else 0.0

    def _measured(self, trainer: L.Trainer) -> int:
        """Set `progress` and return how many evaluations should be over, but the last, as the first process finds it.

        It is 1 if another step would leave too little time for the evaluation at the end.
        """
        evaluation, a_step = self.pace.evaluation, self.pace.a_batch * trainer.accumulate_grad_batches
        time_to_train = max(self.seconds - evaluation - a_step, LEAST * self.seconds)
        progress = min(self.pace.timer.time_elapsed() / time_to_train, 1.0)
        count = min(EVALUATIONS, int(EVALUATING * self.seconds / max(evaluation, 1e-9)))
        due = sum((number / count) ** 1.25 <= progress for number in range(1, count))
        found: tuple[float, int] = trainer.strategy.broadcast((progress, due))
        self.progress, due = found
        return due
