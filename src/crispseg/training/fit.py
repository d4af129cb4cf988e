"""A training run from its configuration to a folder with a model that is ready to predict."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning as L
import torch
import yaml
from rich.console import Console
from timm.layers import convert_sync_batchnorm
from torch import nn

from crispseg.backbones.weights import weights_source
from crispseg.config.registry import load_plugins
from crispseg.config.settings import CONFIG
from crispseg.data import SplitReport, eval_transform, train_transform
from crispseg.data.boundary_targets import boundary_targets
from crispseg.data.folder import Folder, settle
from crispseg.data.loading import Batches, eval_loader, train_loader
from crispseg.errors import CrispsegError, telling
from crispseg.inference.tiling import enough_memory
from crispseg.io.files import atomic_path, owned, writable_folder
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import (
    LAST,
    MODEL,
    check_folder,
    check_same_run,
    interruptible,
    load_checkpoint,
)
from crispseg.training.config import ModelConfig, TrainConfig, config_to_dict
from crispseg.training.feedback import closing_lines
from crispseg.training.losses import BoundaryRefinementLoss, DeepSupervision, WeightedLoss
from crispseg.training.optimization import float32_depthwise, on_cuda
from crispseg.training.pace import callback
from crispseg.training.result import Run
from crispseg.training.task import SegmentationTask, steps_per_epoch
from crispseg.training.trainer import build_trainer, check_processes, is_first_process, quiet
from crispseg.training.training_data import (
    TrainingData,
    check_data,
    class_weights_of,
    keeps_images,
    print_data,
    print_lines,
)

MOST_FROZEN = 0.3
"""Share of the backbone's weights up to which `freeze_backbone="auto"` is `"early"`."""


def train(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Run:
    """Check the data, train, and save.

    Args:
        config: the run; its folder must not hold another one.
        resume: resume the run in `config.out` from its last checkpoint.
        console: where to print.

    Raises:
        CrispsegError: anything wrong with the configuration, the data, weights or folders, before the training starts;
            another process trains in the folder; a loss that is not finite; a file cannot be written.
        Interrupted: SIGINT or SIGTERM came during training.
    """
    check_folder(config, resume=resume)
    folder = Path(config.out)
    if not is_first_process():
        return _train(config, resume, Console(quiet=True))
    with owned(folder, folder / LAST.parent, folder / MODEL):
        return _train(config, resume, console or Console(stderr=True))


def _train(config: TrainConfig, resume: bool, console: Console) -> Run:
    folder = Path(config.out)
    config, notes = settle_settings(config, resume)
    L.seed_everything(config.seed, workers=True, verbose=False)
    model, note = starting_model(config, config.data.label_set(), resume=resume)
    config, data = check_data(config)
    if resume:
        check_same_run(config)
    model.info = dataclasses.replace(model.info, value_range=data.value_range)
    step = load_checkpoint(folder / LAST, model) if resume else 0
    print_data(config, data, [] if resume else [note, *notes], console)
    loaders = build_loaders(config, data, model.info, step)
    if on_cuda(config) and config.processes > 1:  # torch's converter would drop the activations of timm's norms
        model = convert_sync_batchnorm(model)
    task = SegmentationTask(model, build_objective(config, data.train_report), config)
    with computing(config, model):
        trainer = build_trainer(config, data, len(loaders[0]), console)
        if trainer.is_global_zero:
            write_config(config)
        with interruptible(trainer, folder):
            trainer.fit(task, *loaders, ckpt_path=folder / LAST if resume else None, weights_only=True)
    best = callback(trainer, MetricsFile).best
    iou = {name: best[f"iou/{name}"] for name in model.info.class_names}
    with telling(lambda: f"the training is over and its model is saved in {folder}"):
        print_lines(console, closing_lines(config, trainer, data))
        if trainer.is_global_zero:  # others may not reach the folder
            model = SegmentationModel.from_pretrained(folder / MODEL)
        return Run(folder, model, best["miou"] or 0.0, iou, config.data)


def settle_settings(config: TrainConfig, resume: bool) -> tuple[TrainConfig, list[str]]:
    """Complete settings of the model and the data by what is in the files that they name; with lines that say so."""
    check_processes(config)
    load_plugins(config.plugins)
    WeightedLoss(config.losses)  # which may need a library
    if config.init_from and config.model == ModelConfig():
        config = dataclasses.replace(config, model=ModelConfig.of(config.init_from))
    if not (resume or config.init_from):
        _ = config.data.pairs("train") if isinstance(config.data, Folder) else config.data.dataset("train")
        # They may be downloaded; missing images are reported before, damaged masks after.
        weights_source(config.model.backbone, config.model.pretrained)
    data, found = settle(config.data)
    return dataclasses.replace(config, data=data), found


def starting_model(config: TrainConfig, labels: LabelSet, *, resume: bool = False) -> tuple[SegmentationModel, str]:
    """Build the model that training starts with.

    Args:
        config: the run.
        labels: the classes.
        resume: read no weights, since a checkpoint will replace them.

    Returns:
        The model, and a line that says which weights it starts from.

    Raises:
        CrispsegError: the model cannot be built or given these weights.
    """
    start = SegmentationModel.from_pretrained(config.init_from) if config.init_from and not resume else None
    choice = dataclasses.replace(config.model, pretrained=False) if start or resume else config.model
    with enough_memory(f"{choice.name} on {choice.backbone} needs", "choose a smaller backbone or model.width"):
        model = choice.build(len(labels), auxiliary=config.auxiliary_weight > 0)
    model.info = dataclasses.replace(
        model.info, class_names=labels.names, palette=labels.palette, recipe=config_to_dict(config)
    )
    if start:
        note = initialize(model, start, str(config.init_from))
    else:
        note = f"the backbone '{choice.backbone}' starts from {weights_source(choice.backbone, choice.pretrained)}"
    freeze = config.freeze_backbone
    if freeze == "auto":
        trained = bool(config.model.pretrained or config.init_from)
        freeze = "early" if trained and model.backbone.early_share < MOST_FROZEN else False
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
    kept = {key for key in model.state_dict() if not key.startswith(tuple(reset))}
    try:
        if weights.keys() != kept:
            raise RuntimeError
        model.load_state_dict(weights, strict=False)
    except RuntimeError:  # keys or shapes differ
        info = start.info
        options = ", ".join(f"{key} {value}" for key, value in info.options.items())
        raise CrispsegError(
            f"init_from: the weights of {source} are of {info.name} on {info.backbone} with {info.in_chans} channels "
            f"({options}); leave the settings of the model out to build it as it is there"
        ) from None
    return "all weights were copied" if same_classes else "weights were copied; the classifier starts from random ones"


def build_loaders(config: TrainConfig, data: TrainingData, info: ModelInfo, step: int) -> tuple[Batches, Batches]:
    """Build the loaders of both splits; batches for training start after this step of the run."""
    assert config.batch_size != "auto"
    targets = functools.partial(boundary_targets, distance=config.boundary_distance) if config.model.refine else None
    norm = info.mean, info.std, config.model.in_chans
    batches = functools.partial(
        train_loader,
        *(data.train, train_transform(config.augment, *norm, targets), config.batch_size, config.workers),
        seed=config.seed,
        devices=config.processes,
        times=data.times,
        keep=keeps_images(config, data.train_report),
    )
    per_epoch = steps_per_epoch(len(batches()), config)
    if config.epochs and not config.iterations and step > config.epochs * per_epoch:
        raise CrispsegError(f"epochs is {config.epochs}, but {config.out} has begun epoch {-(-step // per_epoch)}")
    start = step // per_epoch, step % per_epoch * config.accumulate
    return batches(start=start), eval_loader(data.val, eval_transform(*norm), config.workers, config.processes)


def build_objective(config: TrainConfig, train: SplitReport) -> nn.Module:
    """Build the loss on the outputs of the model."""
    loss = WeightedLoss(config.losses, config.hard_fraction, class_weights_of(config, train))
    supervised = DeepSupervision(loss, config.auxiliary_weight)
    if not config.model.refine:
        return supervised
    return BoundaryRefinementLoss(supervised, config.boundary_weights, config.direction_mask)


@contextmanager
def computing(config: TrainConfig, model: nn.Module) -> Iterator[None]:
    """In the block, compute as the run asks for, and report in one line that memory does not suffice."""
    bf16_on_cpu = config.precision == "bf16" and not on_cuda(config)
    with (
        warnings.catch_warnings(),
        float32_depthwise(model) if bf16_on_cpu else nullcontext(),
        enough_memory("training needs", "make batch_size or augment.crop smaller"),
    ):
        quiet()
        yield


def write_config(config: TrainConfig) -> None:
    """Write all settings of the run to its folder."""
    writable_folder(Path(config.out) / LAST.parent)
    with atomic_path(Path(config.out) / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False), encoding="utf-8")
