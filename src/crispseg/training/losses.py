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
Loss = Literal["cross_entropy", "dice", "focal", "lovasz"]  # all but the first are from segmentation-models-pytorch
LOSS: dict[Loss, float] = {"cross_entropy": 1.0}  # default weights of the losses
CustomLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function of logits `(N, classes, H, W)` float32 and labels `(N, H, W)`, 255 if ignored; returns a number."""

LIBRARY = RequirementCache("segmentation-models-pytorch>=0.6")  # earlier focal losses sum over classes


class WeightedLoss(nn.Module):
    """Weighted sum of losses, `Σ weight · loss(logits, labels)`, computed in float32 for logits of any precision.

    The losses of `outputs.auxiliary` are added with a weight (SFNet §3.3, "Cascaded Deeply Supervised Learning").

    Args:
        hard_fraction, class_weights: as in `CrossEntropy`.
        auxiliary_weight: weight of the losses of the decoder's levels.
        custom: function that replaces the sum.
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
        """Compute the loss from a model's outputs and class ids `(N, H, W)`; 0 if all pixels are ignored."""
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
                return checked(self.custom(logits, labels), logits)
            terms = [weight * self.losses[name](logits, labels) for name, weight in self.weights.items()]
            return torch.stack(terms).sum()


def checked(loss: Any, logits: Tensor) -> Tensor:
    """Return the result of a custom loss; a result that is not a number with a gradient raises an error."""
    is_number = isinstance(loss, Tensor) and loss.numel() == 1 and loss.is_floating_point()
    if not is_number or logits.requires_grad > loss.requires_grad:
        form = f"{loss.dtype} {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise CrispsegError(f"loss returns {form}; return a tensor of one number that depends on the logits")
    number: Tensor = loss
    return number


def library_loss(name: Loss) -> nn.Module:
    """Return a loss of segmentation-models-pytorch, or raise a `CrispsegError` if it is not installed or too old.

    All are over the labelled pixels of the batch. `dice` is the mean over all classes of 1 - soft Dice (Milletari et
    al., 3DV 2016), 0 for a class that the batch lacks. `focal` is the mean over classes and pixels of the sigmoid focal
    loss, one class against the rest, γ = 2 (Lin et al., ICCV 2017). `lovasz` is the Lovász-Softmax surrogate of IoU,
    the mean over the classes that occur (Berman et al., CVPR 2018).
    """
    if not LIBRARY:
        raise CrispsegError(f"loss {name} needs a package; run: pip install 'segmentation-models-pytorch>=0.6'")
    from segmentation_models_pytorch import losses  # optional, and the import takes a second

    kind = {"dice": losses.DiceLoss, "focal": losses.FocalLoss, "lovasz": losses.LovaszLoss}[name]
    loss: nn.Module = kind(losses.MULTICLASS_MODE, ignore_index=IGNORE)
    return loss


class CrossEntropy(nn.Module):
    """Cross-entropy; it uses only the hardest pixels if `hard_fraction` is below 1 (SFNet §3.3: 0.1).

    Args:
        hard_fraction: fraction of the batch's labelled pixels that count, above 0 and at most 1.
        class_weights: weights `(num_classes,)` that scale each pixel's loss by its class.
    """

    class_weights: Tensor | None

    def __init__(self, hard_fraction: float = 1.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.hard_fraction = hard_fraction
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss of logits `(N, C, H, W)` and class ids `(N, H, W)`; 0 if all pixels are ignored."""
        losses = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORE, reduction="none").flatten()
        labels = labels.flatten()
        if self.hard_fraction < 1:
            # topk finds the hardest pixels without sorting all; the selection itself has no gradient.
            count = max(1, round(self.hard_fraction * int((labels != IGNORE).sum())))
            hardest = torch.topk(losses.detach(), count, sorted=False).indices
            losses, labels = losses[hardest], labels[hardest]
        if self.class_weights is None:
            return losses.sum() / (labels != IGNORE).sum().clamp(min=1)
        weights = F.pad(self.class_weights, [0, IGNORE + 1 - len(self.class_weights)])  # 0 for ignored pixels
        return losses.sum() / weights[labels].sum().clamp(min=1e-6)


class BoundaryRefinementLoss(nn.Module):
    """UN-EPT's Eq. 7: λ1 · loss(unrefined) + λ2 · loss(refined) + λ3 · L_bound + λ4 · L_dir.

    Only the last two terms train the boundary and direction heads.

    Args:
        loss: loss on logits; the first term also includes auxiliary losses.
        weights: weights of the terms, by name; unspecified ones default to `BOUNDARY_WEIGHTS`.
        direction_mask: pixels of L_dir: all true boundary pixels, or only those that are also predicted ("the
            direction map is multiplied by the boundary map", §3.2).
    """

    def __init__(
        self, loss: nn.Module, weights: Mapping[Any, float] | None = None, direction_mask: DirectionMask = "true"
    ) -> None:
        super().__init__()
        self.loss = loss
        self.direction_mask = direction_mask
        self.weights = {**BOUNDARY_WEIGHTS, **(weights or {})}

    def forward(self, outputs: Outputs, labels: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss from the outputs of a refining model, class ids and `boundary_targets`, both `(N, H, W)`."""
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
