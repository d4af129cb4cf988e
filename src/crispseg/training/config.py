"""Typed and checked settings of a training run. The command line and YAML files are derived from them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic_core import to_jsonable_python

from crispseg.config.settings import CHECKS, Settings, written
from crispseg.data import Augment, DataSource
from crispseg.data.loading import MAX_WORKERS
from crispseg.errors import CrispsegError
from crispseg.models import SegmentationModel, create_model
from crispseg.models.frame import Design, is_paper
from crispseg.models.info import MIN_SIDE
from crispseg.models.refinement import (
    MAX_STEPS,
    REFINE_OPTIONS,
    REFINED_BY_DEFAULT,
    STEPS_TAKEN,
    Refinement,
    RefinePath,
)
from crispseg.models.registry import resolved_options
from crispseg.models.saving import absolute_source, read_info
from crispseg.training.losses import BOUNDARY_WEIGHTS, LOSS, BoundaryTerm, DirectionMask, Loss

LargeCount: TypeAlias = Annotated[int, Field(gt=0, le=10**9)]


def spare_processors() -> int:
    """Return the default number of data-loading processes: up to 2, in addition to the training process."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2, usable - 1)


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class ModelConfig(Settings):
    """Arguments of `crispseg.create_model`.

    Args:
        name: the model: crisp, sfnet, sfnet_lite, ddsm_upernet, ddsm_deeplabv3plus, agln, agln_lite, unept, upernet,
            deeplabv3plus, fpn or fcn.
        backbone: resnet18_deep, resnet50_deep, resnet101_deep, df1, df2, stdc1, stdc2, shufflenetv2_x1_0, or any timm
            ViT or model with a feature pyramid.
        pretrained: true for the published backbone weights, bundled for the default backbone and otherwise downloaded;
            or the path of a local weight file.
        in_chans: channels of the images: 3 for colour, 1 for grey, up to 16 for others, such as near infrared.
        design: source of unspecified options: paper, or fitted to the backbone and custom data; auto is paper for the
            backbones of the papers' tables.
        refine: boundary adds UN-EPT's boundary refinement to any model; auto adds it to unept only.
        refine_steps: steps from a boundary pixel to the pixel whose logits it takes; default 2.
        refine_path: chained (each step follows the direction of the pixel where it starts) or straight (all steps
            follow the direction of the first pixel). SegFix takes two straight steps.
        options: further options of the model.
    """

    prefix: ClassVar[str] = "model."
    name: str = "crisp"
    backbone: str = "tf_efficientnet_lite0"
    pretrained: bool | str = True
    in_chans: int = 3
    design: Design = "auto"
    refine: Refinement | None = "auto"
    refine_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    refine_path: RefinePath = "chained"
    options: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.refine == "auto":
            object.__setattr__(self, "refine", "boundary" if self.name in REFINED_BY_DEFAULT else None)
        object.__setattr__(self, "refine_steps", self.refine_steps or STEPS_TAKEN)

    @classmethod
    def of(cls, saved: str | Path) -> ModelConfig:
        """Return the configuration of the model in a run, a saved model's folder or a hub id."""
        info = read_info(saved)
        options = {key: value for key, value in info.options.items() if key not in REFINE_OPTIONS}
        refinement = {"refine": None} | {key: info.options[key] for key in REFINE_OPTIONS if key in info.options}
        return cls(info.name, info.backbone, False, info.in_chans, "paper", **refinement, options=options)

    def resolved_options(self) -> dict[str, Any]:
        """Return all options of the model; those that its builder chooses are None."""
        return resolved_options(self.name, self.options, paper=is_paper(self.design, self.backbone))

    def build(self, num_classes: int, *, auxiliary: bool) -> SegmentationModel:
        """Build the model; `auxiliary` adds heads for deep supervision."""
        own = {key: getattr(self, key) for key in ("backbone", "pretrained", "in_chans", "design", *REFINE_OPTIONS)}
        return create_model(self.name, num_classes=num_classes, auxiliary=auxiliary, **own, **self.options)


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class TrainConfig(Settings):
    """Settings of a training run. An invalid value raises a `CrispsegError`.

    Args:
        data: the data.
        model: the model.
        augment: augmentation of training images.
        out: folder of the run.
        epochs: passes over the training split; if epochs, iterations and minutes are all unset, minutes is 30.
        iterations: optimizer steps; replaces epochs if set.
        minutes: minutes of training, instead of epochs or iterations. The learning rate follows the clock, and up to
            ten evaluations take at most a tenth of the time, if necessary on a sample of at least 20 val images.
        batch_size: images per step and device; auto is 8 crops of 192×192, or fewer larger crops with as many pixels.
        accumulate: number of batches whose gradients are added up for one step.
        optimizer: muon, adamw or sgd. muon gives matrices with a shorter side of 16 to 320 orthogonal updates, at five
            times the learning rate; they are computed at every second step. It is AdamW for other weights.
        lr: initial learning rate.
        backbone_lr_factor: the backbone's learning rate is lr times this.
        momentum: momentum of SGD.
        weight_decay: weight decay, added to the gradient for sgd, otherwise decoupled.
        decay_norms_and_biases: false exempts norms and biases from weight decay.
        schedule: learning-rate decay; poly and cosine apply it at every step, poly_epoch at every epoch, step at
            lr_drops, and constant never.
        power: exponent of the polynomial decay.
        lr_drops: fractions of all steps at which schedule step multiplies the learning rate by 0.1.
        warmup: steps over which the learning rate rises linearly.
        loss: weights of the summed losses (cross_entropy, dice, focal, lovasz), or the name of a single loss.
        hard_fraction: fraction of the hardest pixels that count in cross_entropy (OHEM); 1 is plain cross-entropy.
        auxiliary_weight: weight of the losses on the decoder's levels (deep supervision); 0 disables them.
        class_weights: class weights in cross_entropy: a list with one per class, balanced (median frequency) or
            softened (`share ** -1/2` of the class's pixels, `share ** -1/3` from step 500, or in a shorter run from its
            last fifth, but not before step 250). auto is softened if a class has less than 2 % of the pixels.
        boundary_distance: largest distance, in pixels, of a boundary pixel from the boundary, for model.refine.
        boundary_weights: weights of the losses of model.refine; unspecified ones keep their defaults (UN-EPT's Eq. 7).
        direction_mask: pixels of the direction loss: all true boundary pixels, or only those also predicted.
        clip: largest norm of the gradient.
        freeze_backbone: true freezes the backbone and its batch-norm statistics. early freezes all these statistics
            and the weights of its finest feature (mostly the stem and the first stage). auto is early if the backbone
            is pretrained and these weights are less than 0.3 of all.
        unlabelled: folder of further images, without masks, for which the model learns the predictions of teacher; same
            uses the images of the data that have no mask.
        teacher: run, saved model, exported file, hub id or name of a bundled model, with the same classes.
        unlabelled_weight: weight of the loss of unlabelled images.
        ema: decay of an exponential moving average of the weights, such as 0.999; the average is evaluated and saved.
        patience: stop after this many evaluations without a better mIoU.
        val_every: epochs between evaluations on the val split.
        precision: fp32 or bf16 (mixed); auto is bf16 if the processor or GPU has instructions for it.
        device: cpu, cuda or mps; auto is CUDA if available, else the CPU.
        devices: number of devices per machine; more than one trains distributed.
        num_nodes: number of machines; torchrun or srun starts the same command on each.
        workers: processes that load data; the default is 2, but at most the number of processors minus one.
        seed: seed of everything random: weights, order, augmentation, dropout.
        deterministic: use deterministic operations of PyTorch, so that runs on one CPU are bit-identical. On CUDA, the
            gradient of grid_sample has none, and runs of models that sample differ by rounding.
        checkpoint_every: steps between checkpoints; by default, only the end of each epoch writes one.
        init_from: run, saved model, hub id or name of a bundled model to take the initial weights from; the
            classifier is reset if classes differ. Unspecified options of the model are inherited.
        plugins: Python files to import first; they may register custom parts.
        loggers: loggers in addition to metrics.csv: tensorboard and wandb; default: TensorBoard if it is installed.
    """

    data: pydantic.SkipValidation[DataSource]
    model: ModelConfig = Field(default_factory=ModelConfig)
    augment: Augment = Field(default_factory=Augment)
    out: Path = Path("runs/train")
    epochs: LargeCount | None = None
    iterations: LargeCount | None = None
    minutes: Annotated[float, Field(gt=0, le=10**7)] | None = None
    batch_size: Annotated[int, Field(gt=0, le=2**16)] | Literal["auto"] = "auto"
    accumulate: LargeCount = 1
    optimizer: Literal["muon", "adamw", "sgd"] = "muon"
    lr: NonNegativeFloat = 0.001
    backbone_lr_factor: NonNegativeFloat = 1.0
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.01
    decay_norms_and_biases: bool = True
    schedule: Literal["poly", "poly_epoch", "cosine", "step", "constant"] = "cosine"
    power: NonNegativeFloat = 0.9
    lr_drops: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=lambda: [2 / 3])
    warmup: int = Field(default=20, ge=0, le=10**9)
    loss: Annotated[dict[Loss, PositiveFloat], Field(min_length=1)] | Loss = Field(default_factory=LOSS.copy)
    hard_fraction: float = Field(default=1.0, gt=0, le=1)
    auxiliary_weight: NonNegativeFloat = 0.0
    class_weights: Literal["auto", "softened", "balanced"] | list[NonNegativeFloat] | None = "auto"
    boundary_distance: LargeCount = 5
    boundary_weights: dict[BoundaryTerm, NonNegativeFloat] = Field(default_factory=BOUNDARY_WEIGHTS.copy)
    direction_mask: DirectionMask = "true"
    clip: PositiveFloat | None = None
    freeze_backbone: bool | Literal["early", "auto"] = "auto"
    unlabelled: str | None = None
    teacher: str | None = None
    unlabelled_weight: PositiveFloat = 1.0
    ema: float | None = Field(default=None, gt=0, lt=1)
    patience: LargeCount | None = None
    val_every: LargeCount = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1, le=MAX_WORKERS)
    num_nodes: LargeCount = 1
    workers: int = Field(default_factory=spare_processors, ge=0, le=MAX_WORKERS)
    seed: int = Field(default=0, ge=0, lt=2**32)
    deterministic: bool = False
    checkpoint_every: LargeCount | None = None
    init_from: str | None = None
    plugins: list[str] = Field(default_factory=list)
    loggers: list[Literal["tensorboard", "wandb"]] | None = None

    def __post_init__(self) -> None:
        if self.minutes and (self.epochs or self.iterations):
            raise CrispsegError(f"is {self.minutes:g}, next to epochs or iterations; give one of them", "minutes")
        self._check_unlabelled()
        self._check_augmentation()
        if self.class_weights not in (None, "auto") and "cross_entropy" not in self.losses:
            losses = ", ".join(self.losses)
            raise CrispsegError(f"apply to cross_entropy, but loss is {losses}; add it", "class_weights")

    def _check_unlabelled(self) -> None:
        if self.unlabelled and self.augment.crop is None and self.batch_size != 1:
            raise CrispsegError("is given, but augment.crop is null; give augment.crop a size", "unlabelled")
        if self.teacher and not self.unlabelled:
            raise CrispsegError("needs images to label; give unlabelled a folder of images", "teacher")

    def _check_augmentation(self) -> None:
        augment, channels = self.augment, self.model.in_chans
        if augment.photometric not in (False, "auto") and channels not in (1, 3):
            raise CrispsegError(f"does not support {channels} channels; set it to false", "augment.photometric")
        if augment.crop is None and tuple(augment.scale) != (1, 1) and self.batch_size != 1:
            raise CrispsegError("is null, so images differ in size; set augment.scale to [1, 1]", "augment.crop")
        if augment.crop not in ("auto", None) and min(augment.window or ()) < MIN_SIDE:
            crop = written(augment.crop)
            raise CrispsegError(f"is {crop}; models need at least {MIN_SIDE} pixels per side", "augment.crop")

    @property
    def processes(self) -> int:
        """Number of training processes on all machines."""
        return self.devices * self.num_nodes

    @property
    def losses(self) -> dict[Loss, float]:
        """Weight of each loss, by name."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the settings, with defaults, as a dict of plain types in the structure of a YAML file."""
    model = vars(config.model) | config.model.resolved_options() | {"pretrained": _absolute(config.model.pretrained)}
    del model["options"]
    fields = (field.name for field in dataclasses.fields(config.data))  # type: ignore[arg-type]
    models = {"init_from": config.init_from, "teacher": config.teacher}
    tree = vars(config) | {
        "model": model,
        "data": {"name": config.data.name} | {name: _absolute(getattr(config.data, name)) for name in fields},
        "unlabelled": _absolute(config.unlabelled),
        **{key: value and absolute_source(value) for key, value in models.items()},
        "plugins": [Path(file).absolute() for file in config.plugins],
    }
    plain: dict[str, Any] = to_jsonable_python(tree)
    return plain


def _absolute(value: Any) -> Any:
    """Make an existing path absolute; return any other value unchanged."""
    return Path(value).absolute() if isinstance(value, str | Path) and Path(value).exists() else value
