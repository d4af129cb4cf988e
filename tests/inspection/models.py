"""Small models of each system whose parts do something, and an image, for the tests of this folder."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crispseg import SegmentationModel, create_model
from crispseg.inspection import Inspection, inspect_image

SYSTEMS = {
    "crisp": {"width": 8},
    "sfnet": {"width": 8},
    "ddsm_upernet": {"width": 8, "reduced": 4, "pixels": 9},
    "agln": {"width": 8, "descriptors": 6},
    "unept": {"width": 16, "points": 4, "refine": "boundary"},
}
CLASSES = 12
LIVELY = {"predict_gate": 1.0, **dict.fromkeys(("predict_flow", "theta", "varphi"), 20.0)}
LIVELY |= {"predict": 0.5, "predict_offset": 0.5, "sampling_offsets": 0.3, "attention_weights": 0.3}
"""Standard deviation of the weights of layers of these names."""


def lively(name: str, **options: object) -> SegmentationModel:
    """A model with random weights whose flows, offsets and attention differ from pixel to pixel."""
    torch.manual_seed(3)
    given = {**SYSTEMS.get(name, {"width": 8}), **options}
    model = create_model(name, design="paper", num_classes=CLASSES, backbone="test_efficientnet", **given).eval()
    for path, parameter in model.decoder.named_parameters():
        layer, kind = path.split(".")[-2:] if "." in path else ("", "")
        if kind == "weight" and layer in LIVELY:
            nn.init.normal_(parameter, std=LIVELY[layer])
        if kind == "gamma" or parameter.ndim == 0:
            nn.init.ones_(parameter)
    if model.refiner is not None:
        nn.init.constant_(model.refiner.boundary_head[-1].bias, 0.2)
    return model


@cache
def inspected(name: str, **options: object) -> Inspection:
    """A lively model's inspection of the scene with its truth; for all tests that only read it."""
    return inspect_image(lively(name, **options), *scene())


def scene(height: int = 64, width: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and labels: rectangles of all classes on each other, each of a colour of its own, and noise."""
    draws = np.random.default_rng(5)
    labels = np.zeros((height, width), np.uint8)
    for index in range(2 * CLASSES):
        (top, left), sides = (draws.integers(0, (height, width)) for _ in range(2))
        labels[top : top + sides[0], left : left + sides[1] // 2] = index % CLASSES
    colors = draws.integers(40, 216, (CLASSES, 3))
    return (colors[labels] + draws.integers(-30, 30, (height, width, 3))).astype(np.uint8), labels
