"""Training run, from its configuration to a folder with a model that is ready to predict."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import torch
from rich.console import Console
from timm.layers import convert_sync_batchnorm
from torch import nn

from crispseg.backbones.weights import weights_source
from crispseg.config.registry import load_plugins
from crispseg.data import eval_transform, train_transform
from crispseg.data.boundary_targets import boundary_targets
from crispseg.data.folder import Folder, settle
from crispseg.data.loading import Batches, eval_loader, train_loader, with_keys
from crispseg.data.transforms import CustomTransform
from crispseg.doctor.duplicates import leaks
from crispseg.doctor.facts import subject_of
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import TRAINED
from crispseg.inference.tiling import enough_memory
from crispseg.io.files import LITTER, owned
from crispseg.io.images import image_channels, write_image
from crispseg.io.progress import print_lines
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import LAST, MODEL, check_folder, check_same_run, interruptible, load_checkpoint
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.depthwise import FastDepthwise
from crispseg.training.distillation import DistillationTask, Teacher, open_teacher
from crispseg.training.feature_cache import CachedTask
from crispseg.training.feedback import closing_lines, draw_panels
from crispseg.training.losses import BoundaryRefinementLoss, CustomLoss, WeightedLoss
from crispseg.training.optimization import on_cuda
from crispseg.training.pace import callback
from crispseg.training.result import PICTURE, Run
from crispseg.training.task import SegmentationTask, steps_per_epoch
from crispseg.training.trainer import build_trainer, check_processes, is_first_process, quiet, record, write_text
from crispseg.training.training_data import TrainingData, check_data, class_weights_of, print_data
from crispseg.training.unlabelled_images import WithUnlabelled, unlabelled_files


@dataclass(frozen=True)
class Hooks:
    """Custom code of a run. `config.yaml` does not record it, so pass it again to resume the run.

    Args:
        callbacks: further callbacks for Lightning's trainer.
        transform: augments training samples before crispseg's own augmentation; see `CustomTransform`.
        loss: replaces the losses of the settings; see `CustomLoss`.
        teacher: replaces the teacher of the settings; see `Teacher`.
    """

    callbacks: Sequence[L.Callback] = ()
    transform: CustomTransform | None = None
    loss: CustomLoss | None = None
    teacher: Teacher | None = None


def train(
    config: TrainConfig, *, resume: bool = False, console: Console | None = None, hooks: Hooks | None = None
) -> Run:
    """Check the data, train, and save; or resume the run in `config.out` from its last checkpoint.

    If the last checkpoint is missing, the run resumes from the best one, or else from the beginning.

    Raises:
        CrispsegError: the configuration, data, weights or folders are invalid (raised before the training starts);
            another process trains in the folder; the loss is not finite; a file cannot be written.
        Interrupted: SIGINT or SIGTERM arrived during training.
    """
    check_folder(config.out, resume=resume)
    folder, hooks = Path(config.out), hooks or Hooks()
    if not is_first_process():
        return _train(config, resume, Console(quiet=True), hooks)
    with owned(folder, folder / LAST.parent, folder / MODEL):
        return _train(config, resume, console or Console(stderr=True), hooks)


def _train(config: TrainConfig, resume: bool, console: Console, hooks: Hooks) -> Run:
    folder = Path(config.out)
    checkpoint = check_folder(folder, resume=resume)  # another process may have trained there since the first check
    check_processes(config)
    load_plugins(config.plugins)
    source, notes = settle(config.data)
    config = dataclasses.replace(config, data=source)
    config.data.dataset("train")  # report missing files before weights are downloaded
    L.seed_everything(config.seed, workers=True, verbose=False)
    model, note = starting_model(config, config.data.label_set(), resume=checkpoint is not None)
    config, data = check_data(config)
    notes = [note, *notes]
    if checkpoint:
        check_same_run(config)
        notes = [] if checkpoint == folder / LAST else [f"{folder} has no {LAST}; resuming from {checkpoint.name}"]
    elif resume:
        notes.insert(0, f"{folder} has no checkpoint to resume from; the run starts from the beginning")
    model.info = dataclasses.replace(model.info, value_range=data.value_range)
    step = load_checkpoint(checkpoint, model) if checkpoint else 0
    if config.unlabelled:
        if not (config.teacher or hooks.teacher):
            raise CrispsegError("needs a model that labels the images; give teacher a trained run", "unlabelled")
        teacher = hooks.teacher or open_teacher(str(config.teacher), model.info)
        unlabelled, more = unlabelled_files(config)
        notes += more
    print_data(data, notes, console, config.augment.flip > 0)
    if not (checkpoint or console.quiet):
        print_lines(console, leaks(subject_of(config.data, image_channels(config.model.in_chans))), "yellow")
    loaders = build_loaders(config, data, model.info, step, hooks)
    if on_cuda(config) and config.processes > 1:  # torch's converter would drop the activations in timm's norms
        model = convert_sync_batchnorm(model)
    weights = class_weights_of(config, data.train_report)
    loss: nn.Module = WeightedLoss(config.losses, config.hard_fraction, weights, config.auxiliary_weight, hooks.loss)
    if config.model.refine:
        loss = BoundaryRefinementLoss(loss, config.boundary_weights, config.direction_mask)
    task = SegmentationTask(model, loss, config)
    if config.unlabelled:
        task = DistillationTask(model, loss, config, teacher)
        samples = WithUnlabelled(loaders[0].dataset, unlabelled, config, model.info)  # type: ignore[arg-type]
        loaders = with_keys(loaders[0], dataset=samples), loaders[1]
    cache = TemporaryDirectory(prefix=LITTER, dir=folder, ignore_cleanup_errors=True) if config.cache_features else None
    if cache:
        task = CachedTask(model, loss, config, loaders, Path(cache.name), data.val_report.sizes, console)
        loaders = task.loaders
    bf16_on_cpu = config.precision == "bf16" and not on_cuda(config)
    with (
        warnings.catch_warnings(),
        FastDepthwise() if bf16_on_cpu else nullcontext(),
        cache or nullcontext(),
        enough_memory("training needs", "make batch_size or augment.crop smaller"),
    ):
        quiet()
        trainer = build_trainer(config, len(loaders[0]), console, hooks.callbacks)
        if trainer.is_global_zero:
            (folder / LAST.parent).mkdir(exist_ok=True)  # `check_folder` recognizes a run by this folder
        record(config)
        if isinstance(config.data, Folder):
            write_text(folder / TRAINED, "\n".join(config.data.full_names(config.data.pairs("train"))))
        with interruptible(trainer, folder):
            trainer.fit(task, *loaders, ckpt_path=checkpoint, weights_only=True)
    print_lines(console, closing_lines(config, trainer, data))
    if trainer.is_global_zero:  # other processes may not have access to the folder
        model = SegmentationModel.from_pretrained(folder / MODEL)
        write_image(folder / PICTURE, draw_panels({"prediction": model}, data.val))
    best = callback(trainer, MetricsFile).best
    iou = {name: best[f"iou/{name}"] for name in model.info.class_names}
    return Run(folder, model, best["miou"] or 0.0, iou, config.data)


def starting_model(config: TrainConfig, labels: LabelSet, *, resume: bool = False) -> tuple[SegmentationModel, str]:
    """Build the model that training starts with, and return it with a line that names its initial weights.

    With `resume` no weights are loaded, because a checkpoint will replace them.
    """
    start = SegmentationModel.from_pretrained(config.init_from) if config.init_from and not resume else None
    choice = dataclasses.replace(config.model, pretrained=False) if start or resume else config.model
    with enough_memory(f"{choice.name} on {choice.backbone} needs", "choose a smaller backbone or model.width"):
        model = choice.build(len(labels), auxiliary=config.auxiliary_weight > 0)
    recipe = config_to_dict(config)
    model.info = dataclasses.replace(model.info, class_names=labels.names, palette=labels.palette, recipe=recipe)
    if start:
        note = initialize(model, start, str(config.init_from))
    else:
        note = f"the backbone '{choice.backbone}' starts from {weights_source(choice.backbone, choice.pretrained)}"
    freeze = config.freeze_backbone
    if freeze == "auto":
        trained = bool(config.model.pretrained or config.init_from)
        freeze = "early" if trained and model.backbone.early_share < 0.3 else False
    if freeze:
        model.backbone.freeze(early=freeze == "early")
    return model.to(memory_format=torch.channels_last), note


def initialize(model: SegmentationModel, start: SegmentationModel, source: str) -> str:
    """Copy the weights of `start` to `model` and return a line that reports it.

    The classifier is copied only if the classes are the same; a refinement is copied if both models have one.
    Different networks raise a `CrispsegError`.
    """
    same_classes = model.info.label_set().names == start.info.label_set().names
    reset: tuple[str, ...] = ("auxiliary_heads.",)  # heads for deep supervision; saved models do not contain them
    reset += () if same_classes else ("classifier.",)
    reset += () if model.refiner and start.refiner else ("refiner.",)
    own = {key: value for key, value in model.state_dict().items() if key.startswith(reset)}
    weights = {key: value for key, value in start.state_dict().items() if not key.startswith(reset)}
    try:
        model.load_state_dict(own | weights)
    except RuntimeError:  # keys or shapes differ
        info = start.info
        options = ", ".join(f"{key} {value}" for key, value in info.options.items())
        raise CrispsegError(
            f"init_from: {source} contains weights of {info.name} on {info.backbone} with {info.in_chans} channels "
            f"({options}); leave out the settings of the model to inherit them"
        ) from None
    return "all weights were copied" if same_classes else "weights were copied; the classifier is initialised randomly"


def build_loaders(
    config: TrainConfig, data: TrainingData, info: ModelInfo, step: int, hooks: Hooks
) -> tuple[Batches, Batches]:
    """Build the loaders of both splits; training batches start after this step of the run."""
    assert config.batch_size != "auto"
    targets = functools.partial(boundary_targets, distance=config.boundary_distance) if config.model.refine else None
    norm = info.mean, info.std, config.model.in_chans
    transform = train_transform(config.augment, *norm, targets, hooks.transform)
    batches = functools.partial(
        train_loader,
        *(data.train, transform, config.batch_size, config.workers),
        seed=config.seed,
        devices=config.processes,
        times=data.times,
        keep=data.keep,
    )
    per_epoch = steps_per_epoch(len(batches()), config)
    if config.epochs and not config.iterations and step > config.epochs * per_epoch:
        begun = -(-step // per_epoch)
        raise CrispsegError(f"epochs is {config.epochs}, but {config.out} is in epoch {begun}; give at least {begun}")
    start = step // per_epoch, step % per_epoch * config.accumulate
    return batches(start=start), eval_loader(data.val, eval_transform(*norm), config.workers, config.processes)
