"""Class weights that become milder as a run goes on."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from crispseg.training.losses import CrossEntropy
from crispseg.training.task import SegmentationTask

STEPS = (250, 500)
"""Optimizer steps between which weights become milder."""
EXPONENTS = (1 / 2, 1 / 3)
"""Of one over a class's share of the pixels, before and after."""


class ClassWeightSchedule(Callback):
    """Changes softened class weights from the square root to the cube root of one over each class's share.

    Without the first a rare class is found late, and with the second it is drawn less wide once it has been found
    (docs/defaults.md). How mild they are follows from the step alone, so a resumed run goes on as it was.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        (weights,) = (each.class_weights for each in pl_module.loss.modules() if isinstance(each, CrossEntropy))
        assert weights is not None
        self.weights, self.roots = weights, weights.clone()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        exponent = float(np.interp(trainer.global_step, STEPS, EXPONENTS))
        self.weights.copy_(self.roots ** (exponent / EXPONENTS[0]))
