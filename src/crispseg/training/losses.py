"""Losses on logits at the image's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.data.base import IGNORE
from crispseg.models import Outputs


class CrossEntropy(nn.Module):
    """Cross-entropy, of the hardest pixels only where `hard_fraction` is below 1.

    SFNet §3.3 trains on the hardest 10 % of the pixels by cross-entropy (online hard example mining).

    Args:
        hard_fraction: share of the batch's labelled pixels that count, above 0 and at most 1.
        class_weights: `(num_classes,)`; scales each pixel's loss by its class's weight.
    """

    class_weights: Tensor | None

    def __init__(self, hard_fraction: float = 1.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.hard_fraction = hard_fraction
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`(N, C, H, W)` logits and `(N, H, W)` class ids → mean over the pixels that count; 0 if all are ignored."""
        losses = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORE, reduction="none").flatten()
        counted = labels.flatten() != IGNORE
        if self.hard_fraction < 1:
            # topk finds the hardest without sorting all; the choice itself has no gradient.
            count = max(1, round(self.hard_fraction * int(counted.sum())))
            hardest = torch.topk(losses.detach(), count, sorted=False).indices
            return losses[hardest].sum() / self._weight(labels.flatten()[hardest])
        return losses.sum() / self._weight(labels.flatten())

    def _weight(self, labels: Tensor) -> Tensor:
        counted = labels != IGNORE
        if self.class_weights is None:
            return counted.sum().clamp(min=1)
        return self.class_weights[labels[counted]].sum().clamp(min=1e-6)


class DeepSupervision(nn.Module):
    """`loss(final) + weight · Σ loss(auxiliary)` (SFNet §3.3, "Cascaded Deeply Supervised Learning")."""

    def __init__(self, loss: nn.Module, auxiliary_weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.auxiliary_weight = auxiliary_weight

    def forward(self, outputs: Outputs, labels: Tensor) -> Tensor:
        total: Tensor = self.loss(outputs.logits, labels)
        for logits in outputs.auxiliary or ():
            total = total + self.auxiliary_weight * self.loss(logits, labels)
        return total
