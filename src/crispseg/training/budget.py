"""Runs whose length is a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from crispseg.training.pace import Pace, in_words
from crispseg.training.training_data import print_lines

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
            line = (
                f"an evaluation takes about {in_words(self.pace.evaluation)} of {in_words(self.seconds)}; fewer val "
                "images or more minutes leave more time for training"
            )
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
