"""Calibration and novelty on the half of val that they were not fitted to: by name, which is by tile or by time.

    python benchmarks/confidence.py nuclei=RUN aerial=RUN camvid=RUN leaf=RUN > benchmarks/results/confidence.csv

`NAME=RUN:MODEL` scores another model on the data of the run. The images of the other runs are those unlike the data.
"""

import csv
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Subset
from torchmetrics.functional.classification import binary_auroc

from crispseg import Segmenter, load
from crispseg.evaluation.calibration import SAMPLED_PIXELS, Reliability, drawn_pixels, temperature_of
from crispseg.io.parallel import spread
from crispseg.models import SegmentationModel
from crispseg.models.novelty import Novelty
from crispseg.training.fit import features_of

OTHERS = 30  # images of each other data set
HEAD = ["model", "temperature", "calibration error, %", "log loss · 100", "Brier · 100", "AUROC of confidence, %"]
HEAD += ["AUROC for other data, mean", "lowest", "others named", "own named"]


def scored(logits: list[torch.Tensor], truth: list[torch.Tensor], temperature: float) -> list[float]:
    """Return calibration error, log loss, Brier score and AUROC of confidence for wrong pixels, in percent."""
    reliability, parts = Reliability(), []
    for of_image, labels in zip(logits, truth, strict=True):
        confidence, predicted = (of_image / temperature).softmax(0).max(0)
        reliability.add(confidence.numpy(), predicted.numpy(), labels.numpy())
        parts.append(drawn_pixels(of_image / temperature, labels, SAMPLED_PIXELS // len(truth)))
    pixels, labels = map(torch.cat, zip(*parts, strict=True))
    probabilities = pixels.softmax(1)
    confidence, predicted = probabilities.max(1)
    brier = (probabilities - F.one_hot(labels, pixels.shape[1])).square().sum(1).mean()
    auroc = binary_auroc(1 - confidence, (predicted != labels).long())
    return [reliability.error, *(100 * float(value) for value in (F.cross_entropy(pixels, labels), brier, auroc))]


def calibration(model: SegmentationModel, val: Any) -> list[str]:
    """Return the mean temperature of both halves, and the means of `scored`, before → after."""
    segmenter = Segmenter(model, "cpu")
    samples = sorted((val[index] for index in range(len(val))), key=lambda sample: sample.name)
    logits = [segmenter.logits(sample.image) for sample in samples]
    truth = [torch.from_numpy(sample.labels) for sample in samples]
    middle, rows = len(truth) // 2, []
    for fitted, measured in ((slice(middle), slice(middle, None)), (slice(middle, None), slice(middle))):
        images = zip(logits[fitted], truth[fitted], strict=True)
        parts = [drawn_pixels(*image, SAMPLED_PIXELS // len(truth[fitted])) for image in images]
        temperature = temperature_of(*map(torch.cat, zip(*parts, strict=True)))
        before, after = (scored(logits[measured], truth[measured], value) for value in (1.0, temperature))
        rows.append([temperature, *before, *after])
    temperature, *means = np.mean(rows, 0)
    changes = zip(means[:4], means[4:], strict=True)
    return [f"{temperature:.2f}", *(f"{before:.2f} → {after:.2f}" for before, after in changes)]


def novelty(model: SegmentationModel, data: Any, others: list[Any]) -> list[object]:
    """Return the mean AUROC for images of other data sets, the lowest, the share named, and own images named."""
    train, own = features_of(model, data.dataset("train")), features_of(model, data.dataset("val"))
    unlike = [features_of(model, Subset(val, spread(len(val), OTHERS))) for val in others]
    middle, aurocs, named, own_named = len(own) // 2, [], [], 0
    for fitted, measured in ((own[:middle], own[middle:]), (own[middle:], own[:middle])):
        known = Novelty.fit(train, fitted)
        assert known is not None
        of_own = known.scores(measured)
        own_named += int((of_own > 1).sum())
        for features in unlike:
            scores = known.scores(features)
            target = torch.cat([torch.zeros(len(of_own)), torch.ones(len(scores))]).long()
            aurocs.append(float(binary_auroc(torch.cat([of_own, scores]), target)))
            named.append(float((scores > 1).float().mean()))
    return [round(np.mean(aurocs), 3), round(min(aurocs), 3), round(np.mean(named), 3), f"{own_named} of {len(own)}"]


if __name__ == "__main__":
    table = csv.writer(sys.stdout)
    table.writerow(HEAD)
    runs = dict(argument.split("=") for argument in sys.argv[1:])
    data = {name: load(run.partition(":")[0]).data for name, run in runs.items()}
    for name, run in runs.items():
        model = SegmentationModel.from_pretrained(run.rpartition(":")[2])
        others = [data[other].dataset("val") for other in data if other.split("_")[0] != name.split("_")[0]]
        table.writerow([name, *calibration(model, data[name].dataset("val")), *novelty(model, data[name], others)])
