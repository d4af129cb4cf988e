"""Speed and remaining time of a run, and runs of a fixed duration."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer

CallbackType = TypeVar("CallbackType", bound=Callback)


def callback(trainer: L.Trainer, kind: type[CallbackType]) -> CallbackType:
    """Return a trainer's callback of the given class."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(known for known in callbacks if isinstance(known, kind))


NEVER = sys.maxsize  # value of the trainer's `val_check_interval`; `Pace` requests the evaluations
EVALUATIONS = 10  # maximum number
EVALUATING = 0.1  # fraction of the time for all evaluations, unless the last one takes more
LEAST_IMAGES = 20  # minimum number of val images of an evaluation, if val has more
LEAST = 0.1  # minimum fraction of the time for training, even if the evaluation takes long


class Pace(Callback):
    """Measure the time of batches, except the first of a session, and of evaluations, starting with the sanity check.

    It ends the run with an evaluation, even within an epoch. If the run has a fixed duration, it spreads the
    evaluations over it, and reduces val to a sample if even one evaluation would take too long. All processes follow
    the clock of the first one. The trainer must list the timer before it.

    Args:
        steps: optimizer steps of the whole run, or None if it has a fixed duration.
        seconds: duration of the whole run, or None if it has a fixed number of steps.

    Attributes:
        progress: elapsed fraction of the training time of a run of fixed duration, 0 to 1.
        sampled: number of sampled val images, or None if evaluations use all.
    """

    def __init__(self, timer: Timer, steps: int | None, seconds: float | None) -> None:
        self.timer, self.steps, self.seconds = timer, steps, seconds
        self.evaluation = 0.0  # duration of the latest one in seconds
        self.sampled: int | None = None
        self.warm = 0.0  # end of an evaluation's first batch, before which workers and kernels start
        self.a_batch = 0.0  # seconds per batch, including the time between batches; 0 before the second batch
        self.batches = 0
        self.first = 0.0  # time at which the first batch ended
        self.progress = self.evaluated = 0.0  # current progress, and progress at the latest evaluation
        self.used_up = 0.0  # duration of the run that a session completed, in seconds

    def progress_at(self, step: int) -> float:
        """Return the completed fraction of the run before an optimizer step; for a fixed duration, the present one."""
        return self.progress if self.steps is None else step / self.steps

    def left(self, trainer: L.Trainer) -> str:
        """Return the remaining time of the run, such as "0:13:49", or "?" while it is unknown."""
        if self.seconds is not None:
            seconds = self.seconds - self.timer.time_elapsed()
        elif self.a_batch and self.steps is not None:
            seconds = self.a_batch * trainer.accumulate_grad_batches * (self.steps - trainer.global_step)
        else:
            return "?"
        return str(timedelta(seconds=max(round(seconds), 0)))

    def state_dict(self) -> dict[str, Any]:
        return {"evaluation": self.evaluation, "used_up": self.used_up, "sampled": self.sampled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.seconds is not None:
            self._sample(trainer, self.seconds)
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

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            self.warm = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluation = self.timer.time_elapsed("validate")
        if trainer.sanity_checking and (batches := trainer.num_sanity_val_batches[0]) > 1:
            self.evaluation = (time.monotonic() - self.warm) / (batches - 1) * trainer.num_val_batches[0]
        if self.seconds is not None and not trainer.sanity_checking:
            self.evaluated = self.progress
            self.used_up = self.seconds if trainer.should_stop else 0.0

    def _sample(self, trainer: L.Trainer, seconds: float) -> None:
        """Reduce val to a sample if an evaluation of all would take more than `EVALUATING` of the time."""
        loader: Any = trainer.val_dataloaders
        sampler = loader.sampler
        if self.sampled is None and self.evaluation > EVALUATING * seconds:
            in_time = round(sampler.samples * EVALUATING * seconds / self.evaluation)
            images = max(in_time, LEAST_IMAGES, sampler.devices) // sampler.devices * sampler.devices
            if images < sampler.samples:
                self.evaluation *= images / sampler.samples
                self.sampled = images
        self.sampled = trainer.strategy.broadcast(self.sampled)
        sampler.used = self.sampled or sampler.samples

    def _measure(self, trainer: L.Trainer, seconds: float) -> bool:
        """Set `progress` and return whether an evaluation is due; the first process decides both.

        Progress is 1 if another step would leave too little time for the evaluation at the end.
        """
        a_step = self.a_batch * trainer.accumulate_grad_batches
        progress = self.timer.time_elapsed() / max(seconds - self.evaluation - a_step, LEAST * seconds)
        count = min(EVALUATIONS, int(EVALUATING * seconds / max(self.evaluation, 1e-9)))
        due = (progress - self.evaluated) * count >= 1
        self.progress, due = trainer.strategy.broadcast((min(progress, 1.0), due))
        return due
