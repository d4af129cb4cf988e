"""Parameters and multiply-adds are those of the papers' tables."""

from typing import Any

import pytest
import torch

from crispseg import create_model
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters

CITYSCAPES, CONTEXT, ADE20K = (19, 1024), (59, 480), (150, 480)
"""Number of classes, and side of the image."""


# Millions of parameters, billions of multiply-adds with or without products of features, relative errors of both.
ROWS: list[Any] = [
    ("sfnet", "resnet18_deep", {}, CITYSCAPES, True, 12.87, 122.5, (0.001, 0.013)),
    ("sfnet", "resnet50_deep", {}, CITYSCAPES, True, 31.33, 334, (0.001, 0.013)),
    ("sfnet", "df1", {}, CITYSCAPES, True, 8.42, 16.4, (0.005, 0.015)),
    ("sfnet", "df1", {"width": 128}, CITYSCAPES, True, 9.24, 18.7, (0.005, 0.015)),  # Table 1(d)'s multiply-adds
    ("sfnet", "df2", {}, CITYSCAPES, True, 17.88, 40.0, (0.005, 0.015)),
    ("sfnet", "stdc1", {}, CITYSCAPES, True, 5.99, 29.8, (0.005, 0.015)),
    ("sfnet", "stdc2", {}, CITYSCAPES, True, 10.02, 43.0, (0.005, 0.015)),
    ("sfnet", "shufflenetv2_x1_0", {}, CITYSCAPES, True, 1.90, 16.7, (0.005, 0.015)),
    ("sfnet", "shufflenetv2_x1_0", {"fuse": "add"}, CITYSCAPES, True, 1.88, 16.3, (0.005, 0.015)),
    ("sfnet_lite", "resnet18_deep", {}, CITYSCAPES, True, 12.08, 89.0, (0.001, 0.002)),
    ("sfnet_lite", "stdc1", {}, CITYSCAPES, True, 6.43, 37.1, (0.001, 0.002)),
    ("sfnet_lite", "stdc2", {}, CITYSCAPES, True, 10.46, 50.3, (0.001, 0.002)),
    ("unept", "deit_base_distilled_patch16_384", {"refine": None}, ADE20K, False, 94, 99, (0.01, 0.03)),  # Table 7
]
LARGE: list[Any] = [
    ("sfnet", "resnet101_deep", {}, CITYSCAPES, True, 50.32, 413.5, (0.001, 0.011)),
    ("sfnet", "resnet101_deep", {"released_dilation": True}, CITYSCAPES, True, 50.32, 413.5, (0.001, 0.011)),
    ("ddsm_upernet", "resnet101", {}, CITYSCAPES, True, 51.8, 367.5, (0.05, 0.05)),  # DDSM, Table 3
    ("fpn", "resnet101_deep", {}, CONTEXT, True, 54.32, 124.6, (0.005, 0.025)),  # AGLN, Tables IV and VIII
    ("agln", "resnet101_deep", {}, CONTEXT, False, 61.71, 187.2, (0.005, 0.005)),  # AGLN, Table VIII
    ("agln", "resnet101_deep", {}, CONTEXT, True, 61.71, 187.2, (0.005, 0.05)),
    ("agln_lite", "resnet101_deep", {}, CONTEXT, False, 55.74, 135.6, (0.005, 0.025)),
    ("agln_lite", "resnet101_deep", {}, CONTEXT, True, 55.74, 135.6, (0.005, 0.05)),
]


@pytest.mark.parametrize(
    ("name", "backbone", "options", "data", "products", "mega", "giga", "errors"),
    [*ROWS, *(pytest.param(*row, marks=pytest.mark.slow) for row in LARGE)],
)
def test_counts(
    name: str,
    backbone: str,
    options: Any,
    data: tuple[int, int],
    products: bool,
    mega: float,
    giga: float,
    errors: tuple[float, float],
) -> None:
    classes, side = data
    with torch.device("meta"):  # nothing is computed
        model = create_model(name, num_classes=classes, backbone=backbone, **options)
    assert count_parameters(model) / 1e6 == pytest.approx(mega, rel=errors[0])
    assert count_multiply_adds(model, side, side, attention=products) / 1e9 == pytest.approx(giga, rel=errors[1])
