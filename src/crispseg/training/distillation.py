"""Distillation: a model learns a teacher's probabilities for images without masks (Hinton et al., 2015).

The model sees the images with distorted colours, as the strong views of FixMatch (Sohn et al., NeurIPS 2020). The
targets are probabilities, because the teacher's most probable classes hide rare ones, and have no class weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import CrispsegError, few
from crispseg.inference.runtime import check_logits, open_model
from crispseg.io.arrays import Normalize
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo
from crispseg.training.config import TrainConfig
from crispseg.training.task import Batch, SegmentationTask

Teacher: TypeAlias = Callable[[Tensor], Tensor]  # images `(N, C, H, W)`, 0 to 1, → logits `(N, classes, H, W)`


class DistillationTask(SegmentationTask):
    """Task whose batches end with views of unlabelled images, see `WithUnlabelled`, which a teacher labels."""

    def __init__(self, model: SegmentationModel, loss: nn.Module, config: TrainConfig, teacher: Teacher) -> None:
        super().__init__(model, loss, config)
        self.teacher = teacher
        info = model.info
        self.normalize = Normalize(info.mean, info.std, info.in_chans)

    def loss_of(self, batch: Batch, batch_index: int) -> Tensor:
        *labelled, views, padding = batch
        weak, strong = (view.contiguous(memory_format=torch.channels_last) for view in views.chunk(2, 1))
        loss = super().loss_of(labelled, batch_index)
        return loss + self.config.unlabelled_weight * self.distillation(weak, strong, padding != IGNORE)

    def distillation(self, weak: Tensor, strong: Tensor, seen: Tensor) -> Tensor:
        """Return the mean cross-entropy on strong views with the teacher's probabilities for weak ones.

        Views are normalised images `(N, C, H, W)`; pixels that are not `seen` `(N, H, W)` do not count.
        """
        with torch.no_grad():
            targets = self.teacher(self.normalize.reversed(weak) / 255).float().softmax(1)
        logits = self.model(strong)
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(logits.float(), targets, reduction="none")  # (N, H, W)
        return (losses * seen).sum() / seen.sum().clamp(min=1)


def open_teacher(source: str | None, info: ModelInfo) -> Teacher:
    """Open a model that labels images for another one.

    No, a missing or a damaged model, other classes or channels, or a file of labels raises a `CrispsegError`.
    """
    if source is None:
        raise CrispsegError("needs a model that labels the images; give teacher a trained run", "unlabelled")
    model = open_model(source)
    theirs = model.info
    if theirs.in_chans != info.in_chans:
        raise CrispsegError(f"{source} takes images of {theirs.in_chans} channels, not {info.in_chans}", "teacher")
    if theirs.class_names != info.class_names:
        line = f"{source} has the classes {few(theirs.class_names)}, but the data {few(info.class_names)}"
        raise CrispsegError(f"{line}; give a model of the same classes", "teacher")
    if (theirs.value_range == "image") != (info.value_range == "image"):
        remedy = "give data.value_range " + ("image" if theirs.value_range == "image" else "auto")
        raise CrispsegError(f"{source} takes images of the value range {theirs.value_range}; {remedy}", "teacher")
    check_logits(model, source)
    model.eval().to(memory_format=torch.channels_last)
    normalize = Normalize(theirs.mean, theirs.std, theirs.in_chans)

    def logits(images: Tensor) -> Tensor:
        batch = normalize(255 * images).contiguous(memory_format=torch.channels_last)
        result: Tensor = model.to(images.device)(batch)
        return result

    return logits
