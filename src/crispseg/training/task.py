"""Training task in the hooks of Lightning: one model, one loss, one score."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning as L
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from crispseg.data.loading import derived_seed
from crispseg.errors import CrispsegError
from crispseg.evaluation.scores import Scores, SegmentationScores
from crispseg.inference.protocols import on_padded
from crispseg.inference.tiling import Tiling, tiled
from crispseg.models import SegmentationModel
from crispseg.nn import ceil_div
from crispseg.training.config import TrainConfig
from crispseg.training.optimization import build_optimizer, learning_rate_factor
from crispseg.training.pace import Pace, callback

Batch = list[Tensor]
"""Images `(N, C, H, W)`, labels `(N, H, W)` and, for a refining model, `boundary_targets` `(N, H, W)`."""


class SegmentationTask(L.LightningModule):
    """Steps of training and evaluation around a plain model.

    The loss is called with `model.outputs(images)`, the labels and all other tensors of a batch.

    Attributes:
        scores: scores of the latest evaluation on the val split; `None` before the first.
    """

    def __init__(self, model: SegmentationModel, loss: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.config = config
        self.matrix = SegmentationScores(model.info.num_classes)
        self.scores: Scores | None = None
        self._loss = torch.tensor(0.0)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.config)
        pace, in_an_epoch = callback(self.trainer, Pace), 1
        if pace.steps is not None:
            self.trainer.fit_loop.setup_data()  # sets `num_training_batches`, which the next line reads
            in_an_epoch = steps_per_epoch(self.trainer.num_training_batches, self.config)
        factor = learning_rate_factor(self.config, pace.progress_at, in_an_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # Random numbers of the step, such as dropout, depend on seed and step only: a resumed run draws the same.
        torch.manual_seed(derived_seed("step", self.config.seed, self.current_epoch, batch_index, self.global_rank))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.loss_of(batch, batch_index)
        self._loss = loss.detach()
        self.log("train/loss", self._loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def loss_of(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch."""
        cell = self.config.augment.cutmix
        images, *truth = exchanged(batch, cell) if cell else batch
        loss: Tensor = self.loss(self.model.outputs(images.contiguous(memory_format=torch.channels_last)), *truth)
        return loss

    def on_after_backward(self) -> None:
        # Not in `training_step`: the check waits for the GPU, which by now has the backward pass to do.
        if not torch.isfinite(self._loss):
            raise CrispsegError(
                f"the loss became {self._loss.item()} at step {self.global_step} (lr {self.lr:.2g}); lower lr, add "
                "warmup steps, set clip to 1, or try precision fp32"
            )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        images, labels = batch
        if tile := self.tiling.forced(labels[0].numel()):

            def logits_of(part: NDArray[Any]) -> Tensor:
                return self._logits(torch.from_numpy(part).permute(2, 0, 1)[None].to(self.device))[0].float()

            ids = tiled(logits_of, images[0].permute(1, 2, 0).cpu().numpy(), tile)[0]
            predicted = torch.from_numpy(ids)[None].to(self.device)
        else:
            predicted = self._logits(images).argmax(1)
        self.matrix.update(predicted, labels)

    def on_validation_epoch_end(self) -> None:
        self.scores = self.matrix.scores()
        self.matrix.reset()
        self.log("val/miou", self.scores.miou, prog_bar=True, sync_dist=False)
        self.log("val/pixel_accuracy", self.scores.pixel_accuracy, sync_dist=False)

    @property
    def lr(self) -> float:
        """Largest learning rate of a parameter group."""
        return float(max(group["lr"] for group in self.trainer.optimizers[0].param_groups))

    @cached_property
    def tiling(self) -> Tiling:
        """Tiling of val images, which depends on whether they fit in memory whole."""
        channels = self.model.info.in_chans
        return Tiling(lambda side: self._logits(torch.zeros(1, channels, side, side, device=self.device)), self.device)

    def _logits(self, images: Tensor) -> Tensor:
        return on_padded(lambda whole: self.model(whole.contiguous(memory_format=torch.channels_last)), images)


def exchanged(batch: Batch, side: int) -> Batch:
    """Exchange square cells at the same place among the images of a batch, in another order for each cell."""
    count, height, width = batch[1].shape
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    cells = rows[:, None] * ceil_div(width, side) + columns  # (H, W)
    order = torch.rand(int(cells.max()) + 1, count).argsort(1)  # a permutation of the images for each cell
    source = order[cells].permute(2, 0, 1).to(batch[0].device)  # (N, H, W)
    return [part.take_along_dim(source.unsqueeze(1) if part.ndim == 4 else source, 0) for part in batch]


def steps_per_epoch(batches: int | float, config: TrainConfig) -> int:
    """Return the optimizer steps in an epoch of this number of batches."""
    return max(1, ceil_div(int(batches), config.accumulate))
