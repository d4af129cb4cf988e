"""The models of a cross-validation as one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from operator import attrgetter

import torch
from torch import Tensor, nn

from crispseg.errors import CrispsegError
from crispseg.models import SegmentationModel
from crispseg.models.base import Outputs

SHARED = attrgetter("class_names", "num_classes", "in_chans", "mean", "std", "value_range")  # equal in all members


class Ensemble(SegmentationModel):
    """Model whose probabilities are the mean of those of several models, each with its own refinement and temperature.

    Where the models disagree, the largest mean probability is low, and with it the confidence of a pixel.

    Args:
        members: models of the same classes, channels and value range, by their names in error messages.

    Raises:
        CrispsegError: the models differ in these.
    """

    def __init__(self, members: Mapping[str, SegmentationModel]) -> None:
        nn.Module.__init__(self)  # without a network of its own
        (name, first), *others = members.items()
        for other, member in others:
            if SHARED(member.info) != SHARED(first.info):
                differing = f"{other} and {name} have different classes, channels or value ranges"
                raise CrispsegError(f"{differing}; train the folds with the same settings")
        self.members = nn.ModuleList(members.values())
        self.temperatures = [member.info.temperature for member in members.values()]
        self.info, self.num_classes = replace(first.info, temperature=1.0), first.num_classes
        self.inference_scale, self.align_corners = Fraction(1), False
        self.multiple = self.stride = 1
        self.refiner = self.auxiliary_heads = None

    def logits(self, images: Tensor) -> Tensor:
        """Return the logarithms of the mean probabilities, `(N, num_classes, H, W)` at the images' size."""
        pairs = zip(self.members, self.temperatures, strict=True)
        mean = torch.stack([(member(images).float() / temperature).softmax(1) for member, temperature in pairs]).mean(0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    forward = logits

    def novelty_of(self, images: Tensor) -> float | None:
        """Return the score of the first member."""
        return self.members[0].novelty_of(images)  # type: ignore[no-any-return, operator]

    def outputs(self, images: Tensor) -> Outputs:
        """Return only the logits."""
        return Outputs(self.logits(images))
