"""How fast a run goes, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from crispseg.training.config import TrainConfig


@dataclass(frozen=True)
class Course:
    """The steps of a run whose length is given in epochs or steps, and where it is evaluated."""

    steps: int
    """Optimizer steps of the whole run."""
    between: int
    """Optimizer steps between two evaluations; there is one after the last step too."""

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int) -> Course:
        """The course of a run whose epochs have so many steps."""
        return cls(config.iterations or (config.epochs or 0) * steps_per_epoch, config.val_every * steps_per_epoch)

    def evaluations_after(self, step: int) -> int:
        """How many evaluations are to come after that of this step, if it has one."""
        return -(-self.steps // self.between) - step // self.between if step < self.steps else 0


class Waiting(PassThroughProfiler):
    """Counts the seconds in which training waits for its next batch.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.now = now
        self.seconds = self.began = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.began = self.now()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += self.now() - self.began


class Pace(Callback):
    """Measures steps and evaluations as a run goes on.

    The first step of a session, which is slower, counts in neither. Before the first evaluation its time is foretold
    from the images on which the evaluation is tried out before training, by their pixels.

    Args:
        evaluated: pixels, of this process, in an evaluation.
        now: a clock, in seconds.
    """

    def __init__(self, evaluated: float, now: Callable[[], float] = time.monotonic) -> None:
        self.evaluated = evaluated
        self.now = now
        self.wait = Waiting(now)
        self.foretold = 0.0
        self.evaluations: list[float] = []
        self.training = 0.0  # seconds of the steps after the first one of the session
        self.batches = 0  # of these
        self.waited = 0.0  # before
        self.began = self.latest = 0  # steps that lay behind when the session began, and lie behind now
        self.first: int | None = None  # steps that lay behind after the first one of the session
        self.mark = now()
        self.evaluating = False

    @property
    def evaluation(self) -> float:
        """Seconds of an evaluation with all that is written after it; 0 if none is known."""
        return sum(self.evaluations) / len(self.evaluations) if self.evaluations else self.foretold

    @property
    def a_step(self) -> float | None:
        """Seconds of a step; None before two were made."""
        steps = self.latest - self.first if self.first is not None else 0
        return self.training / steps if steps else None

    @property
    def batches_a_second(self) -> float | None:
        """None before there were two steps."""
        return self.batches / self.training if self.training else None

    @property
    def waiting(self) -> float | None:
        """The share of the time of training that went by waiting for data; None before there were two steps."""
        return min((self.wait.seconds - self.waited) / self.training, 1.0) if self.training else None

    def left(self, course: Course) -> float | None:
        """Seconds to the end of the run; None before there is anything to tell it from."""
        if self.a_step is None:
            return None
        to_come = course.evaluations_after(self.latest)
        return self.a_step * (course.steps - self.latest) + self.evaluation * to_come

    def begin(self, step: int = 0) -> None:
        """Training begins, or goes on after a step."""
        self.mark, self.began, self.first = self.now(), step, None

    def step(self, number: int) -> None:
        """A batch was trained on; so many steps lie behind."""
        if self.first is not None:
            self.training += self.now() - self.mark
            self.batches += 1
        elif number > self.began:
            self.first, self.waited = number, self.wait.seconds
        self.mark, self.latest = self.now(), number

    def evaluation_begins(self) -> None:
        """The network is about to be evaluated."""
        self.mark, self.evaluating = self.now(), True

    def evaluation_ends(self) -> None:
        """What follows an evaluation is done too."""
        self.evaluations.append(self.now() - self.mark)
        self.mark, self.evaluating = self.now(), False

    def state_dict(self) -> dict[str, Any]:
        return {"evaluation": self.evaluation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.foretold = state_dict["evaluation"]

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.sanity_checking:  # the fastest one counts: the first of a size is slower
            height, width = batch[0].shape[-2:]
            seconds = (self.now() - self.mark) * self.evaluated / (height * width)
            self.foretold = min(seconds, self.foretold or seconds)
            self.mark = self.now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:  # what follows it, of which some tells the time left, is not over yet
            self.foretold = self.now() - self.mark

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin(trainer.global_step)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self.evaluating:
            self.evaluation_ends()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.step(trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.evaluation_begins()


def in_words(seconds: float) -> str:
    """A duration in its two largest units: "2 h 05 min", "3 min 10 s" or "45 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"
