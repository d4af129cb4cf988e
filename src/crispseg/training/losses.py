"""Losses on logits at the image's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from crispseg.data.boundary_targets import NO_BOUNDARY
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE
from crispseg.models import Outputs
from crispseg.models.refinement import DIRECTIONS

BoundaryTerm = Literal["unrefined", "refined", "boundary", "direction"]
BOUNDARY_WEIGHTS: dict[BoundaryTerm, float] = {"unrefined": 1.0, "refined": 1.5, "boundary": 3.0, "direction": 0.7}
"""λ1 to λ4 of UN-EPT's Eq. 7."""
DirectionMask = Literal["true", "predicted"]
Loss = Literal["cross_entropy", "dice", "focal", "lovasz"]
"""All but the first are those of segmentation-models-pytorch."""
LOSS: dict[Loss, float] = {"cross_entropy": 1.0}
"""Default weights."""
CustomLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits `(N, classes, H, W)` float32 and labels `(N, H, W)`, 255 for ignored pixels → a number."""

LIBRARY = RequirementCache("segmentation-models-pytorch>=0.6")  # before, its focal loss was a sum over classes


class WeightedLoss(nn.Module):
    """`Σ weight · loss(logits, labels)`, in float32 whatever the precision of the logits.

    Losses of `outputs.auxiliary` are added with a weight (SFNet §3.3, "Cascaded Deeply Supervised Learning").

    Args:
        weights: weight of each loss, by name.
        hard_fraction, class_weights: as in `CrossEntropy`.
        auxiliary_weight: of the losses of the decoder's levels.
        custom: replaces the sum.

    Raises:
        CrispsegError: a loss needs segmentation-models-pytorch, which is not installed or too old.
    """

    def __init__(
        self,
        weights: Mapping[Loss, float],
        hard_fraction: float = 1.0,
        class_weights: Tensor | None = None,
        auxiliary_weight: float = 0.0,
        custom: CustomLoss | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.auxiliary_weight, self.custom = weights, auxiliary_weight, custom
        cross_entropy = CrossEntropy(hard_fraction, class_weights)
        self.losses = nn.ModuleDict(
            {name: cross_entropy if name == "cross_entropy" else library_loss(name) for name in weights}
        )

    def forward(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Outputs of a model and class ids `(N, H, W)` → a number; 0 if all pixels are ignored."""
        total = self._of_logits(outputs.logits, labels)
        for logits in outputs.auxiliary or ():
            total = total + self.auxiliary_weight * self._of_logits(logits, labels)
        return total

    def _of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not (labels != IGNORE).any():
            return logits[:0].float().sum()
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            if self.custom:
                return self.custom(logits, labels)
            terms = [weight * self.losses[name](logits, labels) for name, weight in self.weights.items()]
            return torch.stack(terms).sum()


def library_loss(name: Loss) -> nn.Module:
    """A loss of segmentation-models-pytorch over the labelled pixels of the batch.

    `dice` is 1 less each class's soft Dice score (Milletari et al., 3DV 2016), 0 for a class that the batch lacks, the
    mean over all classes. `focal` is each class against the rest by its own sigmoid, γ = 2, the mean over classes and
    pixels (Lin et al., ICCV 2017). `lovasz` is the Lovász-Softmax surrogate of IoU, the mean over the classes that
    occur (Berman et al., CVPR 2018).
    """
    if not LIBRARY:
        raise CrispsegError(f"loss names {name}; run: pip install 'segmentation-models-pytorch>=0.6'")
    from segmentation_models_pytorch import losses  # takes a second to import, and is optional

    kind = {"dice": losses.DiceLoss, "focal": losses.FocalLoss, "lovasz": losses.LovaszLoss}[name]
    loss: nn.Module = kind(losses.MULTICLASS_MODE, ignore_index=IGNORE)
    return loss


class CrossEntropy(nn.Module):
    """Cross-entropy, of the hardest pixels only where `hard_fraction` is below 1 (SFNet §3.3: 0.1).

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


class BoundaryRefinementLoss(nn.Module):
    """UN-EPT's Eq. 7: λ1 · loss(unrefined) + λ2 · loss(refined) + λ3 · L_bound + λ4 · L_dir.

    Boundary and direction learn from the last two terms alone.

    Args:
        loss: on logits, of which the auxiliary ones join the first term.
        weights: weights of the terms, by name; those not given are as in `BOUNDARY_WEIGHTS`.
        direction_mask: L_dir is of all true boundary pixels, or of those that are predicted to be one ("the direction
            map is multiplied by the boundary map", §3.2).
    """

    def __init__(
        self, loss: nn.Module, weights: Mapping[Any, float] | None = None, direction_mask: DirectionMask = "true"
    ) -> None:
        super().__init__()
        self.loss = loss
        self.direction_mask = direction_mask
        self.weights = {**BOUNDARY_WEIGHTS, **(weights or {})}

    def forward(self, outputs: Outputs, labels: Tensor, targets: Tensor) -> Tensor:
        """Outputs of a model that refines, class ids `(N, H, W)` and `boundary_targets` `(N, H, W)` → a number."""
        unrefined, boundary, direction = outputs.unrefined, outputs.boundary, outputs.direction
        assert unrefined is not None and boundary is not None and direction is not None
        counted, known = targets != IGNORE, targets < DIRECTIONS
        if self.direction_mask == "predicted":
            known &= boundary[:, 0] > 0
        truth = (counted & (targets != NO_BOUNDARY)).float()
        boundaries = F.binary_cross_entropy_with_logits(boundary[:, 0].float(), truth, reduction="none") * counted
        directed = targets.long().masked_fill(~known, IGNORE)
        directions = F.cross_entropy(direction.float(), directed, ignore_index=IGNORE, reduction="sum")
        terms = {
            "unrefined": self.loss(outputs._replace(logits=unrefined), labels),
            "refined": self.loss(outputs._replace(auxiliary=None), labels),
            "boundary": boundaries.sum() / counted.sum().clamp(min=1),  # mean over labelled pixels
            "direction": directions / known.sum().clamp(min=1),  # mean over true boundary pixels with a direction
        }
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
