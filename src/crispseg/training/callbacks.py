"""Callbacks: table of metrics, early stopping, averaged weights and a class-weight schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Timer, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from crispseg.io.files import write_table
from crispseg.nn.record import taps
from crispseg.training.losses import CrossEntropy
from crispseg.training.pace import Pace, callback
from crispseg.training.task import SegmentationTask

FIELDS = ("flow", "fine_flow", "gate")  # names of taps whose size is in `metrics.csv`


class MetricsFile(Callback):
    """Write `metrics.csv`, one row per evaluation. Checkpoints contain the rows, so a resumed run continues the file.

    Lightning's `CSVLogger` deletes the file when a run is resumed, and can leave an incomplete row.

    Columns: epoch (1 is the first), step, seconds of training, lr, train_loss (mean since the last evaluation), miou,
    pixel_accuracy and one IoU per class, in percent; then the mean size of gates and `FIELDS` over val.
    """

    def __init__(self, path: Path, timer: Timer) -> None:
        self.path = path
        self.timer = timer
        self.rows: list[dict[str, str]] = []
        # The sum so far. Checkpoints contain it, so that a resumed run reports one mean.
        self.loss, self.batches = torch.tensor(0.0), 0
        self.sizes: defaultdict[str, list[float]] = defaultdict(list)
        self.hooks = ExitStack()

    @property
    def best(self) -> dict[str, float | None]:
        """Row of the best evaluation, of equal ones the last; an undefined score is None."""
        best = max(reversed(self.rows), key=lambda row: float(row["miou"] or 0))
        return {key: float(value) if value else None for key, value in best.items()}

    @property
    def mious(self) -> list[float]:
        """mIoU of each evaluation; 0 if undefined."""
        return [float(row["miou"] or 0) for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "loss": float(self.loss), "batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.batches = list(state_dict["rows"]), state_dict["batches"]
        self.loss = torch.tensor(state_dict["loss"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        loss = outputs["loss"] * trainer.accumulate_grad_batches  # Lightning has divided it
        self.loss = self.loss.to(loss.device) + loss  # a float would make each step wait for the GPU
        self.batches += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the gates, which are parameters of one number, and measure fields during the evaluation."""
        self.sizes.clear()
        for path, parameter in pl_module.named_parameters():
            if parameter.ndim == 0:
                self.sizes[f"gate/{path.rpartition('.')[2]}"].append(float(parameter.detach().abs()))
        for path, tap in taps(pl_module).items():
            if (name := path.rpartition(".")[2]) in FIELDS:
                self.hooks.enter_context(tap.register_forward_hook(partial(self.measure, f"size/{name}")))

    def measure(self, name: str, _module: nn.Module, _args: Any, field: Tensor) -> None:
        """Add the mean length of the vectors of a field `(N, C, H, W)`."""
        self.sizes[name].append(float(field.float().norm(dim=1).mean()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.hooks.close()
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, SegmentationTask) and pl_module.scores is not None
        scores = pl_module.scores
        percent = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
        percent |= {f"iou/{name}": iou for name, iou in zip(pl_module.model.info.class_names, scores.iou, strict=True)}
        row = {
            "epoch": str(trainer.current_epoch + 1),
            "step": str(trainer.global_step),
            "seconds": f"{self.timer.time_elapsed():.1f}",
            "lr": f"{pl_module.lr:.3g}",
            "train_loss": f"{self.loss / self.batches:.4f}",
            **{name: "" if math.isnan(value) else f"{value:.4f}" for name, value in percent.items()},
            **{name: f"{np.mean(values):.4g}" for name, values in self.sizes.items()},
        }
        self.rows.append(row)
        self.loss, self.batches = torch.tensor(0.0), 0
        if trainer.is_global_zero:
            write_table(self.path, [row, *(map(earlier.get, row) for earlier in self.rows)])


class Patience(Callback):
    """Stop after a number of evaluations without a better mIoU, even if the run was resumed."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        mious = callback(trainer, MetricsFile).mious
        if mious and len(mious) - 1 - mious.index(max(mious)) >= self.patience:
            trainer.should_stop = True

    on_validation_end = on_train_start


class WarmedAverage(WeightAveraging):
    """Exponential moving average of the weights, with decay min(decay, (1 + n) / (10 + n)) after n updates.

    In short runs, the first weights therefore count less than in `EMAWeightAveraging`.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, updates: Any) -> None:
            warmed = min(decay, (1 + int(updates)) / (10 + int(updates)))
            get_ema_multi_avg_fn(warmed)(averaged, current, updates)  # type: ignore[no-untyped-call]

        super().__init__(multi_avg_fn=average)


SCHEDULE_STEPS, SCHEDULE_SHARE = (250, 500), 0.8


class ClassWeightSchedule(Callback):
    """Change softened class weights from `share ** -1/2` to `share ** -1/3` of each class's pixels.

    The change ends at `SCHEDULE_SHARE` of the run, but not before the first or after the second of `SCHEDULE_STEPS`. It
    begins at half of its end. The square root makes the model find rare classes early. The cube root later makes their
    masks less wide (benchmarks/results/trials_losses.csv).
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        (loss,) = (module for module in pl_module.loss.modules() if isinstance(module, CrossEntropy))
        weights = loss.class_weights
        assert weights is not None
        self.weights, self.roots = weights, weights.clone()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step, (first, last) = trainer.global_step, SCHEDULE_STEPS
        reached = np.clip(callback(trainer, Pace).progress_at(step) / SCHEDULE_SHARE, step / last, step / first)
        exponent = float(np.interp(reached, (1 / 2, 1), (1 / 2, 1 / 3)))
        self.weights.copy_(self.roots ** (exponent / (1 / 2)))
