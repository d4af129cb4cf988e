"""Calibration: the temperature that fits probabilities to labels, and the error of confidences.

Guo et al.: On Calibration of Modern Neural Networks. ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from crispseg.data import SegmentationDataset
from crispseg.inference import Segmenter
from crispseg.io.parallel import spread
from crispseg.labels import IGNORE

CONFIDENCE_BINS = 15  # equal bins of confidence, as in the literature
CALIBRATION_IMAGES = 100  # maximum number of images from which a temperature is fitted
SAMPLED_PIXELS = 2**16  # maximum number of their pixels
TEMPERATURES = 0.1, 10.0  # range of the fit


def fitted_temperature(segmenter: Segmenter, dataset: SegmentationDataset, images: int = CALIBRATION_IMAGES) -> float:
    """Return the temperature that fits a model's logits to the labels of at most so many images, evenly spread.

    Of images that are processed in tiles, it is the first tile.
    """
    dataset = dataset.with_channels(segmenter.info.in_chans, segmenter.value_range)
    indices, parts = spread(len(dataset), images), []
    for index in indices:
        image, labels, _ = dataset[index]
        side = segmenter.tile_of(image)
        logits = segmenter.logits(image[:side, :side]).cpu()
        parts.append(drawn_pixels(logits, torch.from_numpy(labels[:side, :side]), SAMPLED_PIXELS // len(indices)))
    return temperature_of(*map(torch.cat, zip(*parts, strict=True)))


def drawn_pixels(logits: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return logits `(N, C)` and labels `(N,)` of random labelled pixels of an image `(C, H, W)`, at most `count`."""
    labelled = (labels.flatten() != IGNORE).nonzero()[:, 0]
    order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(0))
    chosen = labelled[order[:count]]
    return logits.flatten(1)[:, chosen].T, labels.flatten()[chosen].long()


def temperature_of(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the lowest log loss or Brier score of pixels, of both that nearer to 1.

    It is 1 if they are on different sides of 1, since one of them would rise; and without a pixel.
    """
    if not len(labels):
        return 1.0
    truth = F.one_hot(labels, logits.shape[1]).float()
    losses: tuple[Callable[[float], float], ...] = (
        lambda temperature: F.cross_entropy(logits / temperature, labels).item(),
        lambda temperature: F.mse_loss((logits / temperature).softmax(1), truth).item(),  # Brier score
    )
    best = [minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").x for loss in losses]
    return round(float(np.clip(1, min(best), max(best))), 3)


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
