"""Small training runs that several test files make."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from drawn import as_flags, drawn
from rich.console import Console
from torch import Tensor

from crispseg import SegmentationModel, create_model
from crispseg.data import Augment
from crispseg.training import ModelConfig, Run, TrainConfig, train

DRAWN = drawn(train=8, val=4, test=4, height=64, width=96)
MODEL = ModelConfig("fpn", "test_efficientnet", False, options={"width": 16})
FLAGS = [
    *("--preset=paper", "--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16"),
    *as_flags(DRAWN),
    *("--augment.crop=[64,96]", "--augment.repeat=1", "--epochs=2", "--batch_size=4", "--workers=0", "--loggers=[]"),
]
"""Flags of `tiny`."""
PAPER: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 5e-4, "schedule": "poly", "warmup": 0}
PAPER |= {"hard_fraction": 0.1, "auxiliary_weight": 0.4, "class_weights": None}
PAPER |= {"freeze_backbone": False, "precision": "fp32"}


def tiny(out: Path, **changes: Any) -> TrainConfig:
    """A run of a second: 2 epochs of 2 steps."""
    augment = Augment(crop=(64, 96), scale=(0.75, 2.0), turn=False, photometric=False, repeat=1)
    settings: dict[str, Any] = {"model": MODEL, "data": DRAWN, "augment": augment, "epochs": 2, "batch_size": 4}
    return TrainConfig(**settings | {"workers": 0, "loggers": [], "out": out} | PAPER | changes)


def quietly(config: TrainConfig, **options: Any) -> Run:
    return train(config, console=Console(file=io.StringIO()), **options)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(folder)]


def untrained(config: TrainConfig) -> SegmentationModel:
    """The model as the run finds it."""
    L.seed_everything(config.seed, verbose=False)
    return config.model.build(len(config.data.label_set()), auxiliary=config.auxiliary_weight > 0)


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in module.state_dict().items() if not key.startswith("auxiliary_heads.")}


def equal(weights: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return weights.keys() == other.keys() and all(torch.equal(weights[key], other[key]) for key in weights)


def moved(run: Run, config: TrainConfig) -> float:
    """How far all parameters together have moved from where they started."""
    start = dict(untrained(config).named_parameters())
    return math.sqrt(
        sum(float((p.detach() - start[name].detach()).square().sum()) for name, p in run.model.named_parameters())
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def varied(name: str, num_classes: int, **options: Any) -> SegmentationModel:
    """A model that is not trained, in eval mode, whose classes, boundaries and directions vary over an image."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes, backbone="test_efficientnet", **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9  # one batch sets the statistics
    images = torch.randn(2, model.info.in_chans, 64, 64)
    with torch.no_grad():
        model.train()(images)
        outputs, logits = model.eval().outputs(images), model.logits(images)
        model.classifier.bias -= logits.mean(dim=(0, 2, 3))
        for parameter in model.classifier.parameters():
            parameter *= 3 / logits.std()
        if model.refiner is not None and outputs.boundary is not None:
            last: Any = model.refiner.boundary_head[-1]
            last.bias -= outputs.boundary.mean()
    return model


def of_many_opinions(num_classes: int) -> SegmentationModel:
    """A model that is not trained, in eval mode, whose predictions hold many of its classes."""
    torch.manual_seed(0)
    model = create_model("fpn", num_classes=num_classes, backbone="test_efficientnet", width=8).eval()
    with torch.inference_mode():
        model.classifier.bias -= model(torch.randn(1, 3, 64, 64)).mean((0, 2, 3))
    return model
