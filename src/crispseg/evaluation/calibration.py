"""Calibration: the temperature that fits probabilities to labels, and the error of confidences.

Guo et al.: On Calibration of Modern Neural Networks. ICML 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from crispseg.labels import IGNORE

CONFIDENCE_BINS = 15  # equal bins of confidence, as in the literature
SAMPLED_PIXELS = 2**16  # approximate number of pixels from which a temperature is fitted
LOG_RANGE = (-2.0, 2.0)  # of the temperature's logarithm


class PixelSample:
    """Logits `(N, C)` and labels `(N,)` of some pixels of each of a number of images, to fit a temperature."""

    def __init__(self, images: int) -> None:
        self.pixels = -(-SAMPLED_PIXELS // images)
        self.logits, self.labels = list[Tensor](), list[Tensor]()

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add pixels of an image with logits `(C, H, W)` and labels `(H, W)`; ignored pixels do not count."""
        labelled = (labels.flatten() != IGNORE).nonzero()[:, 0]
        order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(len(self.labels)))
        chosen = labelled[order[: self.pixels].to(labelled.device)]
        self.logits.append(logits.flatten(1)[:, chosen].T.float().cpu())
        self.labels.append(labels.flatten()[chosen].long().cpu())

    def temperature(self) -> float:
        """Return the temperature with the lowest log loss or Brier score, of both that nearer to 1.

        It is 1 if they are on different sides of 1, since one of them would rise; and without a labelled pixel.
        """
        logits, labels = (torch.cat(values or [torch.zeros(0)]) for values in (self.logits, self.labels))
        if not len(labels):
            return 1.0
        truth = F.one_hot(labels, logits.shape[1])

        def log_loss(logarithm: float) -> float:
            return F.cross_entropy(logits / np.exp(logarithm), labels).item()

        def brier_score(logarithm: float) -> float:
            return F.mse_loss((logits / np.exp(logarithm)).softmax(1), truth.float()).item()

        best = [minimize_scalar(loss, bounds=LOG_RANGE, method="bounded").x for loss in (log_loss, brier_score)]
        return round(float(np.exp(np.clip(0, min(best), max(best)))), 3)


class Reliability:
    """Confidences of all labelled pixels in equal bins, compared with the share of correct labels.

    Attributes:
        sums: number of pixels, of correct ones, and sum of confidences in each bin, `(3, CONFIDENCE_BINS)`.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((3, CONFIDENCE_BINS))

    def add(self, confidences: NDArray[np.float32], predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add an image: confidences from 0 to 1, predicted and true labels, each `(H, W)`."""
        values, correct = confidences[truth != IGNORE], (predicted == truth)[truth != IGNORE]
        bins = np.searchsorted(np.linspace(0, 1, CONFIDENCE_BINS + 1, dtype=np.float32)[1:-1], values, side="right")
        self.sums += [np.bincount(bins, of_pixel, CONFIDENCE_BINS) for of_pixel in (None, correct, values)]

    @property
    def error(self) -> float:
        """Expected calibration error in percent."""
        return float(100 * np.abs(self.sums[1] - self.sums[2]).sum() / self.sums[0].sum())

    @property
    def bins(self) -> dict[str, list[float]]:
        """Share of the pixels, of correct labels, and mean confidence by bin, in percent."""
        names, (pixels, *of_bin) = ("pixels", "correct", "confidence"), self.sums
        shares = np.array([pixels / pixels.sum(), *(np.array(of_bin) / np.maximum(pixels, 1))])
        return dict(zip(names, (100 * shares).round(4).tolist(), strict=True))
