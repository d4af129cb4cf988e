"""Training run, from its configuration to a folder with a model that is ready to predict."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from timm.layers import convert_sync_batchnorm
from torch import nn

from crispseg.config.registry import load_plugins
from crispseg.data import eval_transform, train_transform
from crispseg.data.boundary_targets import boundary_targets
from crispseg.data.dataset import SegmentationDataset
from crispseg.data.loading import Batches, eval_loader, train_loader, usable_workers, with_dataset
from crispseg.data.transforms import CustomTransform
from crispseg.errors import CrispsegError
from crispseg.evaluation.calibration import CALIBRATION_IMAGES, fitted_temperature
from crispseg.evaluation.recorded import TRAINED
from crispseg.inference import Segmenter
from crispseg.inference.segmenter import as_batch
from crispseg.inference.tiling import enough_memory
from crispseg.io.files import owned
from crispseg.io.host import host_state_restored
from crispseg.io.images import write_image
from crispseg.io.parallel import spread
from crispseg.io.progress import dispensable, print_lines
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo
from crispseg.models.novelty import Novelty, mean_features
from crispseg.models.saving import MODEL
from crispseg.nn import ceil_div
from crispseg.training.callbacks import MetricsFile
from crispseg.training.checkpoints import (
    DIGEST,
    LAST,
    check_folder,
    check_same_run,
    interruptible,
    load_checkpoint,
)
from crispseg.training.config import TrainConfig
from crispseg.training.depthwise import FastDepthwise
from crispseg.training.distillation import DistillationTask, Teacher, open_teacher
from crispseg.training.feedback import closing_lines, draw_panels
from crispseg.training.initial_weights import ledger_of, starting_model
from crispseg.training.losses import BoundaryRefinementLoss, CustomLoss, WeightedLoss
from crispseg.training.optimization import on_cuda
from crispseg.training.pace import Pace, callback
from crispseg.training.report import REPORT, write_report
from crispseg.training.result import PICTURE, Run
from crispseg.training.stage_times import StageTimes
from crispseg.training.task import SegmentationTask, steps_per_epoch
from crispseg.training.trainer import build_trainer, check_processes, is_first_process, quiet, record, write_text
from crispseg.training.training_data import TrainingData, check_data, class_weights_of, print_data, show_data
from crispseg.training.unlabelled_images import WithUnlabelled, unlabelled_files

FEATURE_IMAGES = 100  # maximum number of images of a split for `Novelty`

Loaders = tuple[Batches, Batches]
"""Batches of the train and val splits."""


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


@dataclass(frozen=True)
class Setup:
    """A run that is ready for its first step.

    Attributes:
        config: settings, with a value for each auto.
        checkpoint: checkpoint to resume from.
    """

    config: TrainConfig
    checkpoint: Path | None
    data: TrainingData
    task: SegmentationTask
    loaders: Loaders


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
    device = "cuda" if on_cuda(config) else "cpu"
    # The environment of several processes contains what Lightning told them, which the next fold needs too.
    state = host_state_restored(environment=config.processes == 1)
    with state, torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        setup = prepare(config, resume, console, hooks)
        trainer = fit(setup, console, hooks.callbacks)
        return finish(setup, trainer, console)


# Stages -------------------------------------------------------------------------------------------------------------


def prepare(config: TrainConfig, resume: bool, console: Console, hooks: Hooks) -> Setup:
    """Check what can be checked before the first step, and build everything that the trainer needs."""
    checkpoint = check_folder(config.out, resume=resume)  # another process may have trained there since the first check
    check_processes(config)
    load_plugins(config.plugins)

    source, data_notes = config.data.settled(), config.data.notes()
    source.dataset("train")  # report missing files before weights are downloaded
    L.seed_everything(config.seed, workers=True, verbose=False)
    model, weights_note = starting_model(replace(config, data=source), source.label_set(), resume=bool(checkpoint))
    config, data = check_data(replace(config, data=source))
    model.info = replace(model.info, value_range=data.value_range)

    step = 0
    notes = [weights_note, *data_notes]
    if checkpoint:
        check_same_run(config, data.digest)
        step = load_checkpoint(checkpoint, model)
    if resume:
        notes = resume_notes(checkpoint, Path(config.out), notes)
    teacher, files = None, list[Path]()
    if config.unlabelled:
        teacher = hooks.teacher or open_teacher(config.teacher, model.info)
        files, unlabelled_notes = unlabelled_files(config)
        notes += unlabelled_notes
    model.info = replace(model.info, licences=ledger_of(config, resume=bool(checkpoint)))
    workers, obstacles = usable_workers(config.workers, (config.data, hooks.transform))
    config = replace(config, workers=workers)

    print_data(data, [*notes, *obstacles], console)
    if not checkpoint:
        show_data(data, config.data, Path(config.out), console)

    loaders = build_loaders(config, data, model.info, step, hooks.transform)
    if on_cuda(config) and config.processes > 1:  # torch's converter would drop the activations in timm's norms
        model = convert_sync_batchnorm(model)
    task = SegmentationTask(model, build_loss(config, data, hooks.loss), config)
    setup = Setup(config, checkpoint, data, task, loaders)
    return with_unlabelled(setup, teacher, files) if teacher else setup


def fit(setup: Setup, console: Console, callbacks: Sequence[L.Callback]) -> L.Trainer:
    """Train until the end of the run, and return the trainer with its callbacks."""
    config, folder = setup.config, Path(setup.config.out)
    bf16_on_cpu = config.precision == "bf16" and not on_cuda(config)
    with (
        quiet(),
        FastDepthwise() if bf16_on_cpu else nullcontext(),
        enough_memory("training needs", "make batch_size or augment.crop smaller"),
    ):
        trainer = build_trainer(config, len(setup.loaders[0]), console, callbacks)
        if trainer.is_global_zero:
            (folder / LAST.parent).mkdir(exist_ok=True)  # `check_folder` recognizes a run by this folder
        record(config)
        write_text(folder / DIGEST, setup.data.digest)
        if names := config.data.names_to_record(config.data.pairs("train")):
            write_text(folder / TRAINED, "\n".join(names))
        with interruptible(trainer, folder):
            trainer.fit(setup.task, *setup.loaders, ckpt_path=setup.checkpoint, weights_only=True)
    return trainer


def finish(setup: Setup, trainer: L.Trainer, console: Console) -> Run:
    """Print the scores and draw the best model's predictions; return the finished run."""
    folder = Path(setup.config.out)
    print_lines(console, closing_lines(setup.config, trainer, setup.data))
    samples: Any = setup.loaders[0].dataset
    stages = callback(trainer, StageTimes).lines(samples.seconds, on_cuda(setup.config))
    print_lines(console, stages)
    model = setup.task.model
    if trainer.is_global_zero:  # other processes may not have access to the folder
        model = SegmentationModel.from_pretrained(folder / MODEL)
        model.novelty = Novelty.fit(*(features_of(model, split) for split in (setup.data.train, setup.data.val)))
        segmenter, images = Segmenter(model), callback(trainer, Pace).sampled or CALIBRATION_IMAGES
        model.info = replace(model.info, temperature=fitted_temperature(segmenter, setup.data.val, images))
        model.save_pretrained(folder / MODEL)
        with dispensable(folder / PICTURE, console):
            write_image(folder / PICTURE, draw_panels({"prediction": segmenter}, setup.data.val))
    best = callback(trainer, MetricsFile).best
    iou = {name: best[f"iou/{name}"] for name in model.info.class_names}
    run = Run(folder, model, best["miou"] or 0.0, iou, setup.config.data)
    if trainer.is_global_zero:
        with dispensable(folder / REPORT, console):
            print_lines(console, [f"report: {write_report(run, stages)}"])
    return run


# Parts of the stages ------------------------------------------------------------------------------------------------


def features_of(model: SegmentationModel, dataset: SegmentationDataset) -> torch.Tensor:
    """Return the mean features of evenly spread images of a split, without augmentation."""
    images = (dataset[index].image for index in spread(len(dataset), FEATURE_IMAGES))
    batches = (as_batch(image, model.info, torch.device("cpu")) for image in images)
    return torch.cat([mean_features(model.backbone, batch) for batch in batches])


def resume_notes(checkpoint: Path | None, folder: Path, notes: list[str]) -> list[str]:
    """Return the lines about the start of a resumed run; `notes` are those of a new one."""
    if checkpoint is None:
        return [f"{folder} has no checkpoint to resume from; the run starts from the beginning", *notes]
    if checkpoint == folder / LAST:
        return []
    return [f"{folder} has no {LAST}; resuming from {checkpoint.name}"]


def with_unlabelled(setup: Setup, teacher: Teacher, files: Sequence[Path]) -> Setup:
    """Return a setup that also learns the teacher's labels of unlabelled images."""
    config, task, (train_batches, val_batches) = setup.config, setup.task, setup.loaders
    samples = WithUnlabelled(train_batches.dataset, files, config, task.model.info)  # type: ignore[arg-type]
    task = DistillationTask(task.model, task.loss, config, teacher)
    return replace(setup, task=task, loaders=(with_dataset(train_batches, samples), val_batches))


def build_loss(config: TrainConfig, data: TrainingData, custom: CustomLoss | None) -> nn.Module:
    """Build the loss of the settings; a refining model adds the losses of boundaries and directions."""
    weights = class_weights_of(config, data.train_report)
    loss = WeightedLoss(config.losses, config.hard_fraction, weights, config.auxiliary_weight, custom)
    if config.model.refine:
        return BoundaryRefinementLoss(loss, config.boundary_weights, config.direction_mask)
    return loss


def build_loaders(
    config: TrainConfig, data: TrainingData, info: ModelInfo, step: int, custom: CustomTransform | None
) -> Loaders:
    """Build the loaders of both splits; training batches start after this step of the run."""
    assert config.batch_size != "auto"
    targets = functools.partial(boundary_targets, distance=config.boundary_distance) if config.model.refine else None
    norm = info.mean, info.std, config.model.in_chans
    transform = train_transform(config.augment, *norm, targets, custom, num_classes=info.num_classes)
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
        begun = ceil_div(step, per_epoch)
        raise CrispsegError(f"epochs is {config.epochs}, but {config.out} is in epoch {begun}; give at least {begun}")
    start = step // per_epoch, step % per_epoch * config.accumulate
    return batches(start=start), eval_loader(data.val, eval_transform(*norm), config.workers, config.processes)
