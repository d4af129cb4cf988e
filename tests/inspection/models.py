"""Small models of each system whose parts do something, and an image, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crispseg import SegmentationModel, create_model
from crispseg.data.scenes import render_scene
from crispseg.models.agln import SemanticAggregation, SemanticDistribution
from crispseg.models.ddsm import DynamicSampler
from crispseg.models.sfnet import FlowAlignment

SYSTEMS = {
    "sfnet": {"width": 8},
    "ddsm_upernet": {"width": 8, "reduced": 4, "pixels": 9},
    "agln": {"width": 8, "descriptors": 6},
    "unept": {"width": 16, "points": 4, "refine": "boundary"},
}
CLASSES = 12


def lively(name: str, **options: object) -> SegmentationModel:
    """A model with random weights whose flows, offsets and attention differ from pixel to pixel."""
    torch.manual_seed(3)
    given = {**SYSTEMS.get(name, {"width": 8}), **options}
    model = create_model(name, num_classes=CLASSES, backbone="test_efficientnet", **given).eval()
    for module in model.modules():
        if isinstance(module, FlowAlignment):
            nn.init.normal_(module.predict_flow.weight, std=20)
        if isinstance(module, SemanticAggregation) and module.theta is not None:
            nn.init.normal_(module.theta.weight, std=20)
        if isinstance(module, SemanticDistribution) and module.varphi is not None:
            nn.init.normal_(module.varphi.weight, std=20)
        if isinstance(module, DynamicSampler):
            nn.init.normal_(module.predict.weight, std=0.5)
    if model.refiner is not None:
        nn.init.constant_(model.refiner.boundary_head[-1].bias, 0.2)
    return model


def scene(height: int = 64, width: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and labels."""
    return render_scene(5, (height, width))
