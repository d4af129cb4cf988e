"""Score of images that are unlike the training images: the Mahalanobis distance of the backbone's mean features.

Lee et al.: A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks. NeurIPS 2018.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.backbones import Backbone

LEVELS = slice(-3, -1)  # of the backbone, at strides 8 and 16; the last has too many channels, unless it is alone
FEATURE_SIDE = 256  # larger images are shrunk to about this number of pixels, squared
PRINCIPAL = 24  # number of principal directions; the variance of all others is their mean
LEAST_TRAIN, ENOUGH_VAL, HELD_OUT_PARTS = 10, 100, 5
LIMIT_QUANTILE, LIMIT_MARGIN = 0.95, 1.3


@torch.inference_mode()
def mean_features(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the mean features `(1, D)` of a normalised image `(1, C, H, W)`."""
    height, width = images.shape[-2:]
    multiple = max(backbone.strides)
    factor = min(1.0, FEATURE_SIDE / math.sqrt(height * width)) / multiple
    sides = [max(round(side * factor), 1) * multiple for side in (height, width)]
    shrunk = F.interpolate(images, size=sides, mode="bilinear", align_corners=False, antialias=True)
    levels = backbone(shrunk)
    return torch.cat([level.float().mean((2, 3)) for level in levels[LEVELS] or levels], 1).cpu()


class Novelty(NamedTuple):
    """Distribution of the features of training images; a score of 1 is the limit of familiar images."""

    mean: Tensor  # (D,)
    scale: Tensor  # of offsets from the mean
    directions: Tensor  # principal directions `(K, D)`; their length is the root of the part of an offset that is usual

    @classmethod
    def fit(cls, train: Tensor, val: Tensor) -> Self | None:
        """Fit it to features `(N, D)` of training images and of images that were not trained on; None for too few.

        The limit is a quantile of the scores of images that were not fitted, with a margin. If val has fewer than
        `ENOUGH_VAL` images, parts of the training images are added, each scored by the others.
        """
        if len(train) < LEAST_TRAIN or not len(val):
            return None
        whole, parts = cls.of(train), HELD_OUT_PARTS if len(val) < ENOUGH_VAL else 0
        unseen = [whole.scores(val)]
        for part in range(parts):
            chosen = torch.arange(len(train)) % HELD_OUT_PARTS == part
            unseen.append(cls.of(train[~chosen]).scores(train[chosen]))
        limit = LIMIT_MARGIN * torch.cat(unseen).quantile(LIMIT_QUANTILE)
        return whole._replace(scale=whole.scale / limit)

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Return the distribution of features `(N, D)`, without a limit."""
        mean, count = features.mean(0), min(PRINCIPAL, len(features) // 2, features.shape[1] - 1)
        _, sizes, directions = torch.linalg.svd(features - mean, full_matrices=False)
        variances = sizes.square().clamp_min(1e-12) / len(features)
        others = variances[count:].sum() / (len(mean) - count)
        usual = (1 - others / variances[:count]).clamp_min(0).sqrt()
        return cls(mean, (others * len(mean)).rsqrt(), (usual[:, None] * directions[:count]).contiguous())

    def scores(self, features: Tensor) -> Tensor:
        """Return the scores `(N,)` of features `(N, D)`."""
        offsets = (features - self.mean) * self.scale
        usual = offsets @ self.directions.T
        return (offsets.square().sum(1) - usual.square().sum(1)).clamp_min(0).sqrt()
