"""Runs whose length is a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from crispseg.training.pace import Pace

NEVER = sys.maxsize
"""As `val_check_interval` of the trainer: evaluations come when `Budget` asks for them."""

EVALUATIONS = 10
"""At most so many evaluations."""
EVALUATING = 0.1
"""Share of the time that they may take together, unless the one at the end takes more."""
LEAST = 0.1
"""Share of the time that is trained, however long the evaluation takes."""


class Budget(Callback):
    """Spreads evaluations over a given time, and ends the run so that the last one is within it.

    They lie closer together at first, so that one sees early how it goes.

    Args:
        seconds: of training and evaluating, in all sessions of the run.
        elapsed: seconds so far.
        pace: knows how long an evaluation takes.

    Attributes:
        progress: share of the time for training that lies behind, 0 to 1; the learning rate follows it.
    """

    def __init__(self, seconds: float, elapsed: Callable[[], float], pace: Pace) -> None:
        self.seconds = seconds
        self.elapsed = elapsed
        self.pace = pace
        self.progress = 0.0
        self.evaluated = 0.0  # progress at the last evaluation
        self.used_up = 0.0  # the seconds that a session came to the end of

    def left(self) -> float:
        """Seconds to the end."""
        return max(self.seconds - self.elapsed(), 0.0)

    @property
    def share_of_evaluation(self) -> float:
        """Share of the time that one evaluation takes; may be more than 1."""
        return self.pace.evaluation / self.seconds

    def measure(self) -> None:
        """Set `progress`; it is 1 where another step would leave too little time for the evaluation at the end."""
        kept = max(self.pace.evaluations, default=self.pace.foretold) + (self.pace.a_step or 0.0)
        self.progress = min(self.elapsed() / max(self.seconds - kept, LEAST * self.seconds), 1.0)

    @property
    def due(self) -> bool:
        """Whether an evaluation is due before that at the end."""
        count = min(EVALUATIONS, int(EVALUATING / max(self.share_of_evaluation, 1e-9)))
        coming = ((number / count) ** 1.25 for number in range(1, count))
        return any(self.evaluated < share <= self.progress for share in coming)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self.evaluated, "used_up": self.used_up}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluated, self.used_up = state_dict["evaluated"], state_dict["used_up"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._measure_together(trainer)
        trainer.should_stop = self.used_up >= self.seconds
        self.evaluated = min(self.evaluated, self.progress)  # the run may have been given more time

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._measure_together(trainer)
        stepped = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        trainer.should_stop = trainer.should_stop or (stepped and self.progress == 1)
        trainer.val_check_batch = 1 if stepped and due else NEVER

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.evaluated = self.progress
            self.used_up = self.seconds if trainer.should_stop else 0.0

    def _measure_together(self, trainer: L.Trainer) -> bool:
        """Set `progress` and tell whether an evaluation is due, as the first process of a distributed run finds it.

        So all have one learning rate and evaluate and end at one step.
        """
        self.measure()
        due: bool
        self.progress, due = trainer.strategy.broadcast((self.progress, self.due))
        return due
