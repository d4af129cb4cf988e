"""The model as training finds it: built, given weights to start from, and frozen in part."""

from __future__ import annotations

import dataclasses

import torch

from crispseg.errors import CrispsegError
from crispseg.inference.tiling import enough_memory
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.training.config import TrainConfig, config_to_dict

MOST_FROZEN = 0.3
"""Share of the backbone's weights up to which `freeze_backbone="auto"` is `"early"`."""


def starting_model(config: TrainConfig, labels: LabelSet, *, resume: bool = False) -> tuple[SegmentationModel, str]:
    """Build the model that training starts with.

    Args:
        config: the run.
        labels: the classes.
        resume: read no weights, since a checkpoint will replace them.

    Returns:
        The model, and a line that says which weights it starts from.

    Raises:
        CrispsegError: the model cannot be built or given these weights, or has no early stages to freeze.
    """
    start = SegmentationModel.from_pretrained(config.init_from) if config.init_from and not resume else None
    choice = config.model.untrained() if start or resume else config.model
    with enough_memory(f"{choice.name} on {choice.backbone} needs", "choose a smaller backbone or model.width"):
        model = choice.build(len(labels), auxiliary=config.auxiliary_weight > 0)
    model.info = dataclasses.replace(
        model.info, class_names=labels.names, palette=labels.palette, recipe=config_to_dict(config)
    )
    if start:
        note = initialize(model, start, str(config.init_from))
    else:
        note = f"the backbone '{choice.backbone}' starts from {choice.weights()}"
    freeze, has_stages = config.freeze_backbone, len(model.backbone.strides) > 1
    if freeze == "early" and not has_stages:
        raise CrispsegError(
            f"freeze_backbone is early, but {config.model.name} uses a single feature that all stages of its backbone "
            "are part of; give true or false"
        )
    if freeze == "auto":
        trained = bool(config.model.pretrained or config.init_from)
        freeze = "early" if trained and has_stages and model.backbone.early_share < MOST_FROZEN else False
    if freeze:
        model.backbone.freeze(early=freeze == "early")
    return model.to(memory_format=torch.channels_last), note


def initialize(model: SegmentationModel, start: SegmentationModel, source: str) -> str:
    """Copy the weights of `start` to `model`, those of the classifier only if the classes are the same.

    Heads for deep supervision are in no saved model and keep their weights, and so does a refinement that only `model`
    has; one that only `start` has is left out.

    Returns:
        A line that says what was done.

    Raises:
        CrispsegError: the two are different networks.
    """
    same_classes = model.info.label_set().names == start.info.label_set().names
    reset = ["auxiliary_heads."]
    if not same_classes:
        reset.append("classifier.")
    if not (model.refiner and start.refiner):
        reset.append("refiner.")
    weights = {key: value for key, value in start.state_dict().items() if not key.startswith(tuple(reset))}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
        fits = not unexpected and all(key.startswith(tuple(reset)) for key in missing)
    except RuntimeError:  # shapes differ
        fits = False
    if not fits:
        raise CrispsegError(
            f"init_from: the weights of {source} do not fit, since {_differences(model.info, start.info)}; "
            "leave that out to build the model as it is there"
        )
    return "all weights were copied" if same_classes else "weights were copied; the classifier starts from random ones"


def _differences(own: ModelInfo, other: ModelInfo) -> str:
    """What makes two models different networks; only the name of the model if that differs."""
    one, two = ({"backbone": info.backbone, "in_chans": info.in_chans, **info.options} for info in (own, other))
    if own.name != other.name:
        one, two = {"name": own.name}, {"name": other.name}
    keys = [key for key in one if one[key] != two.get(key) and key not in REFINE_OPTIONS]  # which may change
    return " and ".join(f"model.{key} is {one[key]}, there {two.get(key)}" for key in keys) or "their parts differ"
