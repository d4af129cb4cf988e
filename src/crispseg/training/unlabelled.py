"""Training with unlabelled images: consistency of a student with a teacher of averaged weights.

Sources:

- FixMatch (Sohn et al., NeurIPS 2020): pseudo-labels from a weak view, cross-entropy on a strong one, `THRESHOLD`.
- FreeMatch (Wang et al., ICLR 2023): thresholds that follow the running mean confidence of each class.
- UniMatch (Yang et al., CVPR 2023): CutMix between strong views of a batch, with these probabilities and areas; as many
  unlabelled as labelled crops; a loss divided by all pixels.
- U2PL (Wang et al., CVPR 2022): a teacher of averaged weights, in eval mode.
- ReCo (Liu et al., ICLR 2022): pseudo-labels count by their confidence.

Targets are the teacher's probabilities, because its most probable classes hide rare ones. The class weights of the
labelled loss shape these probabilities, so this loss has none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from crispseg.io.progress import print_lines
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.training.callbacks import WarmedAverage
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import ProgressLines, class_scores
from crispseg.training.pace import callback
from crispseg.training.task import Batch, SegmentationTask

THRESHOLD = 0.95
"""Largest confidence that a pseudo-label needs."""
MEMORY = 0.99
"""Decay per step of running sums."""
MEASURED = 10
"""Batches between predictions of the teacher for labelled crops."""
WAIT = 5
"""Minimum number of these predictions before unlabelled images are used."""
USEFUL = 0.1
"""Usefulness of the teacher from which they are used."""
DOUBT = 1.3
"""Largest ratio of the teacher's doubt about unlabelled crops to that about labelled ones; others are not used."""


class Trust:
    """Running sums of what the teacher predicts, which decide whether and how much its labels count.

    Attributes:
        unlabelled: `(3, C)` pixels of unlabelled crops by predicted class: their number, the number of trusted ones,
            and the sum of the confidences.
        labelled: number of pixels of labelled crops, and the sum of the confidences, `(2,)`.
        matrix: `(C, C)` pixels of labelled crops, by true and predicted class.
        weight: `usefulness` of the teacher.
        measured: number of predictions for labelled crops.
        used: whether unlabelled images are used; None until this is decided.
        doubts: one minus the mean confidence in labelled and in unlabelled crops, when this was decided.
    """

    def __init__(self, classes: int) -> None:
        self.unlabelled, self.labelled = torch.zeros(3, classes), torch.zeros(2)
        self.matrix = torch.zeros(classes, classes)
        self.weight, self.measured = 0.0, 0
        self.used: bool | None = None
        self.doubts: list[float] = []

    def add_unlabelled(self, *sums: Tensor) -> None:
        """Add the pixels of a batch, see `unlabelled`."""
        decay = MEMORY ** (MEASURED if self.used is None else 1)
        self.unlabelled = decay * self.unlabelled.to(sums[0].device) + torch.stack(sums)

    def add_labelled(self, matrix: Tensor, sums: Tensor) -> None:
        """Add the pixels of a batch, see `matrix` and `labelled`."""
        self.matrix = MEMORY**MEASURED * self.matrix.to(matrix.device) + matrix
        self.labelled = MEMORY**MEASURED * self.labelled.to(sums.device) + sums
        self.weight = float(usefulness(self.matrix))
        self.measured += 1

    def decide(self) -> bool | None:
        """Set `used` after enough predictions of a useful teacher, and return it."""
        if self.used is None and self.measured >= WAIT and self.weight >= USEFUL:
            self.doubts = [1 - float(sums[-1].sum() / sums[0].sum()) for sums in (self.labelled, self.unlabelled)]
            self.used = self.doubts[1] <= DOUBT * self.doubts[0]
        return self.used

    @property
    def thresholds(self) -> Tensor:
        """Confidence `(C,)` that a label of each class needs: the mean of the class, at most `THRESHOLD`."""
        return (self.unlabelled[2] / self.unlabelled[0].clamp(min=1)).clamp(max=THRESHOLD)

    @property
    def trusted(self) -> Tensor:
        """Share of the trusted pixels of each predicted class, `(C,)`."""
        return self.unlabelled[1] / self.unlabelled[0].clamp(min=1)


def usefulness(matrix: Tensor) -> Tensor:
    """Return the mIoU of `(C, C)` pixels on a scale from 0, that of always the largest class, to 1."""
    hits, truth = matrix.diag(), matrix.sum(1)
    occurs = truth > 0
    miou = (hits / (truth + matrix.sum(0) - hits).clamp(min=1))[occurs].mean()
    constant = truth.max() / truth.sum().clamp(min=1) / occurs.sum()
    return ((miou - constant) / (1 - constant).clamp(min=1e-6)).clamp(min=0).nan_to_num()  # NaN without pixels


def boxes(count: int, height: int, width: int) -> Tensor:
    """Return CutMix's boxes as masks `(count, H, W)`: half are empty, others have 2 to 40 % of the area."""
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        chosen, area, aspect, y, x = torch.rand(5).tolist()
        if chosen < 0.5:
            side, ratio = (0.02 + 0.38 * area) ** 0.5, 0.3 ** (aspect - 0.5)  # square root of 0.3 to 1 / 0.3
            high, wide = min(round(side * ratio * height), height), min(round(side / ratio * width), width)
            top, left = round(y * (height - high)), round(x * (width - wide))
            mask[top : top + high, left : left + wide] = True
    return masks


def mixed(box: Tensor, maps: Tensor) -> Tensor:
    """Return maps `(N, H, W)` or `(N, C, H, W)` with the boxes `(N, H, W)` filled from the next one of the batch."""
    return torch.where(box if maps.ndim == 3 else box[:, None], maps.roll(-1, 0), maps)


class ConsistencyTask(SegmentationTask):
    """Task whose batches end with views of unlabelled images and their labels, see `WithUnlabelled`.

    The teacher is the model of `WarmedAverage`, which checkpoints contain.
    """

    def __init__(self, model: SegmentationModel, loss: nn.Module, config: TrainConfig) -> None:
        super().__init__(model, loss, config)
        self.trust = Trust(model.info.num_classes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["trust"] = dict(vars(self.trust))  # not as buffers, which evaluations swap with averages

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        vars(self.trust).update(checkpoint["trust"])

    def loss_of(self, batch: Batch, batch_index: int) -> Tensor:
        *labelled, views, padding = batch
        loss = super().loss_of(labelled, batch_index)
        if self.trust.used is False:
            return loss
        weak, strong = views.chunk(2, 1)
        if (self.current_epoch * int(self.trainer.num_training_batches) + batch_index) % MEASURED == 0:
            self.measure(labelled[0], labelled[1])
            if self.trust.used is None:
                self.pseudo_labels(weak, padding)
                if self.trust.decide() is not None:
                    self.report()
        if not self.trust.used:
            return loss
        return loss + self.config.unlabelled_weight * self.trust.weight * self.consistency(weak, strong, padding)

    def report(self) -> None:
        """Print what was decided; read no more unlabelled images if they are not used."""
        line = f"unlabelled images are used from step {self.global_step}"
        if not self.trust.used:
            loader: Any = self.trainer.train_dataloader
            loader.dataset.reading.fill_(False)
            known, new = (f"{100 * doubt:.0f} %" for doubt in self.trust.doubts)
            line = f"unlabelled images are not used: the model doubts {new} of their pixels and {known} of the labelled"
            line += " ones, so they seem to be of another kind"
        print_lines(callback(self.trainer, ProgressLines).console, [line])

    def further_metrics(self) -> dict[str, float]:
        names, trusted = self.model.info.class_names, 100 * self.trust.trusted
        shares = {f"trusted/{name}": share for name, share in zip(names, trusted.tolist(), strict=True)}
        return {"unlabelled_weight": self.trust.weight if self.trust.used else 0.0, **shares}

    def summary(self) -> str:
        """Return the closing line of a run."""
        if not self.trust.used:
            return "unlabelled images were not used" + "; the run is too short" * (self.trust.used is None)
        shares = class_scores(100 * self.trust.trusted.cpu().numpy(), self.model.info.class_names, most=16)
        return f"unlabelled images: trusted pixels by predicted class in %: {shares}; weight {self.trust.weight:.2f}"

    def measure(self, images: Tensor, labels: Tensor) -> None:
        """Compare the teacher's labels of labelled crops with their true labels."""
        confidence, found = self.predicted(images).max(1)
        classes, counted = self.model.num_classes, labels != IGNORE
        matrix = torch.bincount(labels[counted] * classes + found[counted], minlength=classes**2).view(classes, -1)
        confidences = torch.stack([counted.sum(), confidence[counted].sum()])
        self.trust.add_labelled(self.summed(matrix), self.summed(confidences))

    def pseudo_labels(self, weak: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's probabilities `(N, C, H, W)` and their weights `(N, H, W)`, and count them."""
        probabilities = self.predicted(weak)
        confidence, labels = probabilities.max(1)
        seen, classes = padding != IGNORE, self.model.num_classes
        trusted = seen & (confidence >= self.trust.thresholds.to(self.device)[labels])
        counts = (torch.bincount(labels[chosen], minlength=classes) for chosen in (seen, trusted))
        confidences = torch.bincount(labels[seen], confidence[seen], classes)
        self.trust.add_unlabelled(*map(self.summed, (*counts, confidences)))
        return probabilities, confidence * trusted

    def consistency(self, weak: Tensor, strong: Tensor, padding: Tensor) -> Tensor:
        """Return the loss of the student on strong views against the teacher's labels of weak views."""
        targets, weights = self.pseudo_labels(weak, padding)
        box = boxes(len(weak), *weak.shape[2:]).to(self.device)
        strong, targets, weights, seen = (mixed(box, each) for each in (strong, targets, weights, padding != IGNORE))
        buffers = {name: each.clone() for name, each in self.model.named_buffers()}  # strong views leave batch norms
        logits: Tensor = functional_call(self.model, buffers, strong.contiguous(memory_format=torch.channels_last))
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(logits.float(), targets, reduction="none")  # (N, H, W)
        return (losses * weights).sum() / seen.sum().clamp(min=1)

    def predicted(self, images: Tensor) -> Tensor:
        """Return the teacher's probabilities `(N, C, H, W)`."""
        teacher = callback(self.trainer, WarmedAverage).model.eval()
        with torch.no_grad():
            logits: Tensor = teacher(images.contiguous(memory_format=torch.channels_last))
        return logits.float().softmax(1)

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum of values over all processes."""
        return self.trainer.strategy.reduce(values.float(), reduce_op="sum")
