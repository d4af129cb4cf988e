"""Model that training starts with: its weights, from a backbone's file or another model, and its frozen parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from crispseg.backbones.weights import weights_licence, weights_source
from crispseg.errors import CrispsegError
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.inference.tiling import enough_memory
from crispseg.labels import LabelSet
from crispseg.licences import CODE, NOT_STATED, Licence
from crispseg.models import SegmentationModel
from crispseg.models.saving import (
    CONFIG_FILE,
    MODEL,
    TRAINING_ONLY,
    WEIGHTS_FILE,
    read_info,
    saved_files,
    shipped_folder,
)
from crispseg.training.config import TrainConfig, config_to_dict

EARLY_SHARE = 0.3  # largest share of the backbone's weights that freeze_backbone auto freezes


def starting_model(config: TrainConfig, labels: LabelSet, *, resume: bool = False) -> tuple[SegmentationModel, str]:
    """Build the model that training starts with, and return it with a line that names its initial weights.

    With `resume` no weights are loaded, because a checkpoint will replace them.
    """
    start = SegmentationModel.from_pretrained(config.init_from) if config.init_from and not resume else None
    choice = replace(config.model, pretrained=False) if start or resume else config.model
    with enough_memory(f"{choice.name} on {choice.backbone} needs", "choose a smaller backbone or model.width"):
        model = choice.build(len(labels), auxiliary=config.auxiliary_weight > 0)
    recipe = config_to_dict(config)
    model.info = replace(model.info, class_names=labels.names, palette=labels.palette, recipe=recipe)
    if start:
        note = initialize(model, start, str(config.init_from))
    else:
        note = f"the backbone '{choice.backbone}' starts from {weights_source(choice.backbone, choice.pretrained)}"
    if frozen := frozen_part(config, model):
        model.backbone.freeze(early=frozen == "early")
    return model.to(memory_format=torch.channels_last), note


def ledger_of(config: TrainConfig, *, resume: bool) -> tuple[Licence, ...]:
    """Return the licences of all that the model of a run descends from; with `resume`, those that it recorded."""
    if resume and (Path(config.out) / MODEL / CONFIG_FILE).is_file():  # the models that it started from may be gone
        return read_info(config.out).licences
    licences = [*CODE, config.data.ledger_entry]
    if config.model.pretrained and not config.init_from:
        licences.append(weights_licence(config.model.backbone, config.model.pretrained))
    for parent in filter(None, (config.init_from, config.teacher)):
        model, own = open_model(parent), CODE[0].licence if shipped_folder(parent) else NOT_STATED
        files = [model.path] if isinstance(model, ExportedModel) else saved_files(parent, WEIGHTS_FILE)
        licences += [*model.info.licences, *(Licence.of_file(Path(parent).name, own, file) for file in files)]
    if config.unlabelled:
        licences.append(Licence("data", "unlabelled images", NOT_STATED, Path(config.unlabelled).name))
    return tuple(dict.fromkeys(licences))


def frozen_part(config: TrainConfig, model: SegmentationModel) -> bool | Literal["early"]:
    """Return what to freeze of the backbone: all of it, nothing, or its early weights."""
    if config.freeze_backbone != "auto":
        return config.freeze_backbone
    trained = config.model.pretrained or config.init_from
    return "early" if trained and model.backbone.early_share < EARLY_SHARE else False


def initialize(model: SegmentationModel, start: SegmentationModel, source: str) -> str:
    """Copy the weights of `start` to `model` and return a line that reports it.

    The classifier is copied only if the classes are the same; a refinement is copied if both models have one.
    Different networks raise a `CrispsegError`.
    """
    same_classes = model.info.label_set().names == start.info.label_set().names
    reset = [TRAINING_ONLY]
    if not same_classes:
        reset.append("classifier.")
    if not (model.refiner and start.refiner):
        reset.append("refiner.")
    own = {key: value for key, value in model.state_dict().items() if key.startswith(tuple(reset))}
    weights = {key: value for key, value in start.state_dict().items() if not key.startswith(tuple(reset))}
    try:
        model.load_state_dict(own | weights)
    except RuntimeError:  # keys or shapes differ
        info = start.info
        options = ", ".join(f"{key} {value}" for key, value in info.options.items())
        raise CrispsegError(
            f"init_from: {source} contains weights of {info.title} with {info.in_chans} channels "
            f"({options}); leave out the settings of the model to inherit them"
        ) from None
    return "all weights were copied" if same_classes else "weights were copied; the classifier is initialised randomly"
