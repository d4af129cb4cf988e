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


NEVER = sys.maxsize
"""As `val_check_interval` of the trainer: evaluations come when `Pace` asks for them."""

EVALUATIONS = 10  # at most
EVALUATING = 0.1  # share of the time that they may take together, unless the one at the end takes more
LEAST = 0.1  # share of the time that is trained, however long the evaluation takes


class Pace(Callback):
    """Measures batches, without the first one of a session, and evaluations, first by the sanity check.

    It ends the run with an evaluation, wherever in an epoch that is. If the length of the run is a time, it spreads
    evaluations over it. All processes follow the clock of the first one. The timer comes before it in the trainer.

    Args:
        timer: of the run.
        steps: optimizer steps of the whole run, if they are its length.
        seconds: length of the whole run, if that is a time.

    Attributes:
        progress: share of the training time that is over, 0 to 1; the learning rate follows it.
    """

    def __init__(self, timer: Timer, steps: int | None, seconds: float | None) -> None:
        self.timer, self.steps, self.seconds = timer, steps, seconds
        self.evaluation = 0.0  # seconds of the latest one
        self.a_batch = 0.0  # seconds, with what comes between two batches; 0 before there were two
        self.batches = 0
        self.first = 0.0  # when the first one ended
        self.progress = self.evaluated = 0.0  # now, and at the latest evaluation
        self.used_up = 0.0  # the seconds that a session came to the end of

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
        return {"evaluation": self.evaluation, "used_up": self.used_up}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.seconds is not None:
            self._measure(trainer, self.seconds)
            self.evaluated = self.progress
            trainer.should_stop = self.used_up >= self.seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.first = self.first if self.batches else now
        self.a_batch = (now - self.first) / max(self.batches, 1)
        self.batches += 1
        if self.steps is not None and trainer.global_step >= self.steps:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True
        if self.seconds is not None:
            due = self._measure(trainer, self.seconds)
            stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
            trainer.should_stop = trainer.should_stop or (stepped and self.progress == 1)
            trainer.val_check_batch = 1 if stepped and due else NEVER

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        share = trainer.num_sanity_val_batches[0] / trainer.num_val_batches[0] if trainer.sanity_checking else 1
        self.evaluation = self.timer.time_elapsed("validate") / share
        if self.seconds is not None and not trainer.sanity_checking:
            self.evaluated = self.progress
            self.used_up = self.seconds if trainer.should_stop else 0.0

    def _measure(self, trainer: L.Trainer, seconds: float) -> bool:
        """Set `progress` and return whether an evaluation is due, both as the first process finds it.

        Progress is 1 if another step would leave too little time for the evaluation at the end.
        """
        a_step = self.a_batch * trainer.accumulate_grad_batches
        progress = self.timer.time_elapsed() / max(seconds - self.evaluation - a_step, LEAST * seconds)
        count = min(EVALUATIONS, int(EVALUATING * seconds / max(self.evaluation, 1e-9)))
        found = min(progress, 1.0), (progress - self.evaluated) * count >= 1
        self.progress, due = trainer.strategy.broadcast(found)
        return due
