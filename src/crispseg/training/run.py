"""A training run from its configuration to a folder with a model that is ready to predict."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import warnings
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
import yaml
from rich.console import Console
from torch import Tensor

from crispseg.config.plugins import load_plugins
from crispseg.data import SplitReport, check_split, eval_transform, train_transform
from crispseg.data.bit_depth import known_range, range_line
from crispseg.data.dataset import SegmentationDataset
from crispseg.data.folder import Folder, settle
from crispseg.data.large import times_an_epoch
from crispseg.data.loading import eval_loader, train_loader
from crispseg.data.split_check import few_images
from crispseg.doctor.classes import class_findings
from crispseg.doctor.kinds import Severity
from crispseg.errors import CrispsegError, telling
from crispseg.inference.protocols import MIN_SIDE
from crispseg.io.files import atomic_path, owned, writable_folder
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.base import described
from crispseg.models.boundary_targets import BoundaryTargets
from crispseg.models.info import ModelInfo
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.training.checkpoints import BEST, LAST, MODEL, EpochCheckpoint, load_checkpoint
from crispseg.training.config import CONFIG, ModelConfig, TrainConfig, config_to_dict
from crispseg.training.feedback import foretold
from crispseg.training.fitting import class_weights_of, fitted, keeps_images
from crispseg.training.interruption import interruptible
from crispseg.training.losses import BoundaryRefinementLoss, DeepSupervision, build_loss
from crispseg.training.precision import float32_depthwise, has_bf16
from crispseg.training.processes import (
    agreed,
    all_or_none,
    check_alike,
    check_started,
    is_first_process,
    is_joined,
    joined,
)
from crispseg.training.result import PICTURES, Run
from crispseg.training.resuming import check_folder
from crispseg.training.room import check_batch, check_network
from crispseg.training.summary import best_row, closing_lines, foldable
from crispseg.training.task import SegmentationTask, steps_per_epoch
from crispseg.training.trainer import build_trainer, on_cuda, quiet

OWN = {"data", "out", "workers", "plugins", "precision", "init_from"}
"""Settings that may differ between the processes of a run: paths, and what a machine has."""

MOST_FROZEN = 0.3
"""Share of the backbone's weights up to which freeze_backbone auto is early."""


def train(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Run:
    """Check the data, train, and save.

    Args:
        config: the run; its folder must not hold another one.
        resume: continue the run in `config.out` from its last checkpoint.
        console: where to print.

    Raises:
        CrispsegError: anything wrong with the configuration, the data, weights or folders, before the training starts;
            another process trains in the folder; a loss that is not finite; a file cannot be written.
        Interrupted: SIGINT or SIGTERM came during training.
    """
    out = Path(config.out)
    with joined(), ExitStack() as stack:
        with all_or_none():
            check_started(config)
            if is_first_process() and out != Path():  # which is refused
                stack.enter_context(owned(out, out / LAST.parent, out / MODEL, out / PICTURES))
        return _train(config, resume, console)


@dataclass(frozen=True)
class _Ready:
    """A run whose settings, data and weights are found good."""

    config: TrainConfig
    model: SegmentationModel
    train_set: SegmentationDataset
    val_set: SegmentationDataset
    reports: tuple[SplitReport, SplitReport]
    times: list[int]
    """How often an epoch takes each training image."""
    last: int
    """The step of the checkpoint that the run goes on from."""
    latest: int
    """That of its latest checkpoint."""


def _prepared(config: TrainConfig, resume: bool, console: Console) -> _Ready:
    """Find whatever could go wrong before the long work starts; joined processes each do so by themselves."""
    load_plugins(config.plugins)
    build_loss(config.losses)  # where its library is missing, this is told before the data are read
    if config.init_from and config.model == ModelConfig():
        config = dataclasses.replace(config, model=ModelConfig.of(config.init_from))
    folder = check_folder(config, resume=resume)
    told = is_joined() and not is_first_process()  # weights and step come from the first process
    if not (resume or config.init_from or told):
        _ = config.data.pairs("train") if isinstance(config.data, Folder) else config.data.dataset("train")
        config.model.weights()  # what cannot be had is said before masks are read, and after files that are missing
    data, found = settle(config.data)
    config = dataclasses.replace(config, data=data)
    L.seed_everything(config.seed, workers=True, verbose=False)
    labels = config.data.label_set()
    model, note = starting_model(config, labels, resume=resume or told)
    goes_on = resume and not told
    last = load_checkpoint(folder / LAST, model) if goes_on else 0
    latest = max(last, load_checkpoint(folder / BEST, model) if goes_on and (folder / BEST).is_file() else 0)
    splits = [config.data.dataset(name).with_channels(config.model.in_chans) for name in ("train", "val")]
    value_range = known_range(splits[0])
    model.info = dataclasses.replace(model.info, value_range=value_range)
    train_set, val_set = (split.with_channels(config.model.in_chans, value_range) for split in splits)
    reports = check_split(train_set, "train"), check_split(val_set, "val")
    config = fitted(config, reports[0])
    assert config.batch_size != "auto"
    if resume:
        check_folder(config, resume=True)  # now of what was auto too
    _check_sizes(config, reports)
    if not resume:
        for line in (note, *found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_reports(reports, console, foldable(config.data))
    if value_range:
        console.print(range_line(splits[0], value_range), highlight=False, soft_wrap=True)

    times = times_an_epoch(config.augment, reports[0].sizes, config.batch_size * config.accumulate * config.processes)
    if max(times) > 1:
        of = "the one image" if len(times) == 1 else f"each of {len(times)} images"
        each = f"{min(times)} to {max(times)}" if min(times) < max(times) else f"{max(times)}"
        console.print(
            f"an epoch takes {each} crops of {of}, {sum(times)} in all; see augment.repeat",
            highlight=False,
            soft_wrap=True,
        )
    check_batch(config, reports[0], sum(times))
    return _Ready(config, model, train_set, val_set, reports, times, last, latest)


def _as_the_first(ready: _Ready) -> _Ready:
    """The same with what the first process has read and chosen.

    Raises:
        CrispsegError: the settings or the data of another process are others.
    """
    if not is_joined():
        return ready
    settings = {key: value for key, value in config_to_dict(ready.config).items() if key not in OWN}
    groups = [(key, settings.pop(key)) for key in ("model", "augment")]
    settings |= {f"{group}.{key}": value for group, values in groups for key, value in values.items()}
    settings["model.pretrained"] = bool(settings["model.pretrained"])  # a path, which may differ
    settings["init_from"] = bool(ready.config.init_from)
    check_alike("settings", settings)
    check_alike("images", {report.split: _in_short(report) for report in ready.reports})
    precision, state, last, latest = agreed(
        lambda: (ready.config.precision, ready.model.state_dict(), ready.last, ready.latest)
    )
    ready.model.load_state_dict(state)
    config = dataclasses.replace(ready.config, precision=precision)
    return dataclasses.replace(ready, config=config, last=last, latest=latest)


def _in_short(report: SplitReport) -> str:
    """What tells the images of a split from others."""
    pixels = hashlib.sha256(repr((report.sizes, report.shares, report.present.tolist())).encode()).hexdigest()[:8]
    return f"{report.images} with sizes and classes {pixels}"


def _train(config: TrainConfig, resume: bool, console: Console | None) -> Run:
    """As `train`, in a folder that no other process trains in."""
    console = console or Console(stderr=True)
    if not is_first_process():
        console = Console(quiet=True)
    with all_or_none():
        ready = _prepared(config, resume, console)
    ready = _as_the_first(ready)
    config, model, reports = ready.config, ready.model, ready.reports
    folder, labels = Path(config.out), reports[0].labels
    assert config.batch_size != "auto"
    targets = BoundaryTargets(config.boundary_distance) if config.model.refine else None
    augmented = train_transform(config.augment, model.info.mean, model.info.std, config.model.in_chans, targets)
    plain = eval_transform(model.info.mean, model.info.std, config.model.in_chans)
    batches = functools.partial(
        train_loader,
        *(ready.train_set, augmented, config.batch_size, config.workers),
        seed=config.seed,
        devices=config.processes,
        times=ready.times,
        keep=keeps_images(config, reports[0]),
    )
    per_epoch = steps_per_epoch(len(batches()), config)
    epochs = None if config.iterations or config.minutes else config.epochs
    if epochs and ready.latest > epochs * per_epoch:
        done = -(-ready.latest // per_epoch)
        raise CrispsegError(f"epochs is {epochs}, but the run in {folder} has begun epoch {done}; give that or more")
    steps = None if config.minutes else config.iterations or (epochs or 0) * per_epoch
    for line in foretold(steps, per_epoch, config.augment, reports[0].largest):
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    start = ready.last // per_epoch, ready.last % per_epoch * config.accumulate
    loaders = batches(start=start), eval_loader(ready.val_set, plain, config.workers, config.processes)
    weights = class_weights_of(config, reports[0])
    loss = DeepSupervision(build_loss(config.losses, config.hard_fraction, weights), config.auxiliary_weight)
    refined = BoundaryRefinementLoss(loss, config.boundary_weights, config.direction_mask)
    task = SegmentationTask(model, refined if config.model.refine else loss, config)
    on_cpu_bf16 = config.precision == "bf16" and not on_cuda(config)
    if on_cpu_bf16 and has_bf16() is False:
        note = "precision is bf16, for which this processor has no instructions; --precision fp32 is faster here"
        console.print(note, highlight=False, soft_wrap=True)
    deterministic = torch.get_deterministic_debug_mode()
    with warnings.catch_warnings(), float32_depthwise(model) if on_cpu_bf16 else nullcontext():
        quiet()
        trainer = build_trainer(config, len(loaders[0]), *reports, ready.val_set, console)
        if is_first_process():
            writable_folder(folder / LAST.parent)
            with atomic_path(folder / CONFIG) as temporary:
                temporary.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False), encoding="utf-8")
        try:
            with interruptible(trainer, folder):
                trainer.fit(task, *loaders, ckpt_path=folder / LAST if resume else None, weights_only=True)
                best = trainer.checkpoint_callback
                assert isinstance(best, EpochCheckpoint)
                if trainer.is_global_zero:
                    best.save_model(model)  # again, since a killed run may not have come to it
        finally:
            torch.set_deterministic_debug_mode(deterministic)  # as before Lightning set it

    trainer.strategy.barrier()
    assert best.best_model_score is not None
    miou = float(best.best_model_score)
    result = best_row(trainer)
    iou = {name: float(result[f"iou/{name}"]) if result[f"iou/{name}"] else None for name in labels.names}
    with telling(lambda: f"the training is over and its model is saved; score it with: crispseg evaluate {folder}"):
        for line in closing_lines(config, trainer, *reports, ready.val_set):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return Run(folder, _saved_model(folder), miou, iou, config.data)


def _saved_model(folder: Path) -> SegmentationModel:
    """The model in a run's folder, which joined processes take from the first one."""
    if not is_joined():
        return SegmentationModel.from_pretrained(folder / MODEL)

    def read() -> tuple[ModelInfo, dict[str, Tensor]]:
        saved = SegmentationModel.from_pretrained(folder / MODEL)
        return saved.info, saved.state_dict()

    info, state = agreed(read)
    model = described(info)
    model.info = info
    model.load_state_dict(state)
    return model.eval()


def starting_model(config: TrainConfig, labels: LabelSet, *, resume: bool = False) -> tuple[SegmentationModel, str]:
    """The model as training finds it, and a line that says which weights it starts from.

    With `resume` no weights are read: a checkpoint will replace them.

    Raises:
        CrispsegError: the model cannot be built or given these weights, or has no early stages to freeze.
    """
    start = SegmentationModel.from_pretrained(config.init_from) if config.init_from and not resume else None
    choice = config.model.untrained() if start or resume else config.model
    check_network(choice, len(labels))
    model = choice.build(len(labels), auxiliary=config.auxiliary_weight > 0)
    model.info = dataclasses.replace(
        model.info, class_names=labels.names, palette=labels.palette, recipe=config_to_dict(config)
    )
    if start:
        note = initialize(model, start, str(config.init_from))
    else:
        note = f"the backbone '{choice.backbone}' starts from {choice.weights()}"
    freeze, stages = config.freeze_backbone, len(model.backbone.strides) > 1
    if freeze == "early" and not stages:
        raise CrispsegError(
            f"freeze_backbone is early, but {choice.name} takes one feature from its backbone, which all stages are "
            "part of; give true or false"
        )
    if freeze == "auto":
        trained = bool(config.model.pretrained or config.init_from)
        freeze = "early" if trained and stages and model.backbone.early_share < MOST_FROZEN else False
    if freeze:
        model.backbone.freeze(early=freeze == "early")
    return model.to(memory_format=torch.channels_last), note


def initialize(model: SegmentationModel, start: SegmentationModel, source: str) -> str:
    """Give `model` the weights of `start`, its classifier's only if the classes are the same.

    Heads for deep supervision are in no saved model and stay as they are, and so does a refinement that only `model`
    has; one that only `start` has is left behind.

    Returns:
        A line that says what was done.

    Raises:
        CrispsegError: the two are different networks.
    """
    same_classes = model.info.label_set().names == start.info.label_set().names
    anew = ["auxiliary_heads."]
    if not same_classes:
        anew.append("classifier.")
    if not (model.refiner and start.refiner):
        anew.append("refiner.")
    weights = {key: value for key, value in start.state_dict().items() if not key.startswith(tuple(anew))}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
        fits = not unexpected and all(key.startswith(tuple(anew)) for key in missing)
    except RuntimeError:  # shapes differ
        fits = False
    if not fits:
        raise CrispsegError(
            f"init_from: the weights of {source} do not fit, since {_differences(model.info, start.info)}; "
            "leave that out, and the model is built as there"
        )
    return "all weights were taken over" if same_classes else "weights were taken over, the classifier starts anew"


def _differences(own: ModelInfo, other: ModelInfo) -> str:
    """What makes two models other networks, the kind of network alone where that differs."""
    one, two = ({"backbone": info.backbone, "in_chans": info.in_chans, **info.options} for info in (own, other))
    if own.name != other.name:
        one, two = {"name": own.name}, {"name": other.name}
    keys = [key for key in one if one[key] != two.get(key) and key not in REFINE_OPTIONS]  # which may change
    differing = [f"model.{key} is {one[key]}, there {two.get(key)}" for key in keys]
    return " and ".join(differing) or "the parts of the two differ"


def _check_sizes(config: TrainConfig, reports: tuple[SplitReport, SplitReport]) -> None:
    """Find images that no model takes before the first evaluation does; training images may be filled up to a crop."""
    for report, whole in zip(reports, (config.augment.crop is None, True), strict=True):
        if whole and min(report.smallest) < MIN_SIDE:
            height, width = report.smallest
            raise CrispsegError(
                f"{report.split} has images down to {height}×{width} pixels; models need at least {MIN_SIDE} a side, "
                "enlarge or remove the smaller ones"
            )


def _print_reports(reports: tuple[SplitReport, SplitReport], console: Console, folds: bool) -> None:
    """The one mapping of ids to classes that holds for this run, and what looks odd about it."""
    train_report, val_report = reports
    for line in train_report.lines():
        console.print(line, highlight=False, markup=False)
    console.print(val_report.lines()[0], highlight=False, markup=False)
    lines = [f"{one.message}; {one.remedy}" for one in class_findings(reports) if one.severity > Severity.INFORMATION]
    for line in (*few_images(train_report, val_report, folds), *lines):
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
