"""Everything that decides a training run, typed and checked. The command line and YAML files are made of these."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from crispseg.data import DATA_SOURCES, Augment, DataSource, Scenes
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.models import SegmentationModel, create_model
from crispseg.models.registry import model_options
from crispseg.refinement import Refinement
from crispseg.training.losses import BOUNDARY_WEIGHTS, LOSSES


@dataclass(frozen=True)
class ModelConfig:
    """What `crispseg.create_model` is given.

    Args:
        name: the system, sfnet, ddsm_upernet, ddsm_deeplabv3plus, agln, agln_lite, unept, upernet, deeplabv3plus, fpn
            or fcn.
        backbone: resnet18_deep, resnet50_deep, resnet101_deep, df1, df2, shufflenetv2_x1_0, or any timm name with a
            feature pyramid; for unept, a ViT of timm too.
        pretrained: true for the published backbone weights (downloaded), or a path to a local weight file.
        in_chans: channels of the images, 3 for colour, 1 for grey or 4 for colour and one more, such as near infrared.
        refine: boundary for UN-EPT's refinement along boundaries, on any model.
        options: further options of the model.
    """

    name: str = "sfnet"
    backbone: str = "resnet18"
    pretrained: bool | str = False
    in_chans: int = 3
    refine: Refinement | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, num_classes: int, *, auxiliary: bool) -> SegmentationModel:
        """The model, with heads for deep supervision if asked."""
        return create_model(
            self.name,
            num_classes=num_classes,
            backbone=self.backbone,
            pretrained=self.pretrained,
            in_chans=self.in_chans,
            refine=self.refine,
            auxiliary=auxiliary,
            **self.options,
        )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Args:
        model: the model.
        data: the data.
        augment: how training images are varied.
        out: folder of the run.
        epochs: passes over the training split.
        iterations: optimizer steps; counts instead of epochs where given.
        batch_size: images a step and device.
        accumulate: batches whose gradients are added up for one step.
        optimizer: sgd or adamw.
        lr: initial learning rate.
        backbone_lr_factor: the backbone's learning rate is lr times this.
        momentum: of SGD.
        weight_decay: of SGD (added to the gradient) or AdamW (decoupled).
        decay_norms_and_biases: false exempts norms and biases from weight decay.
        schedule: poly decays the learning rate at every step, poly_epoch at every epoch, step at lr_drops, constant
            never.
        power: of the polynomial decay.
        lr_drops: shares of all steps at which schedule step multiplies the learning rate by 0.1.
        warmup: steps over which the learning rate rises linearly.
        loss: weights of the losses that are added up, cross_entropy, dice, focal and lovasz, or the name of one.
        hard_fraction: share of the hardest pixels that count in cross_entropy (OHEM); 1 is plain cross-entropy.
        auxiliary_weight: weight of the losses on the decoder's levels (deep supervision); 0 trains without.
        class_weights: weights of the classes in cross_entropy, one a class, or balanced (median frequency).
        boundary_distance: pixels up to which one is on a boundary, for model.refine.
        boundary_weights: weights of the losses of model.refine, those on unrefined and refined logits, of the boundary
            and of the direction; those not given keep their defaults (UN-EPT's Eq. 7).
        clip: largest norm of the gradient.
        freeze_backbone: keep the backbone as it is, batch-norm statistics too.
        ema: decay of an exponential moving average of the weights, such as 0.999, that is evaluated and saved.
        patience: stop after this many evaluations without a better mIoU.
        val_every: epochs between evaluations on the val split.
        precision: fp32 or bf16 (mixed).
        accelerator: auto, cpu or cuda.
        devices: number of devices; more than one trains distributed.
        workers: processes that load data.
        seed: everything random follows from it: weights, order, augmentation, dropout.
        deterministic: let PyTorch use deterministic operations only, so that runs on one machine are equal bit for bit.
        checkpoint_every: steps between checkpoints; by default there is one at the end of each epoch only.
        init_from: run, saved model or hub id whose weights to start from; the classifier is reset if classes differ.
        plugins: Python files to import first, which may register parts of your own.
        loggers: beside metrics.csv, tensorboard and wandb; by default TensorBoard where it is installed.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataSource = field(default_factory=Scenes)
    augment: Augment = field(default_factory=Augment)
    out: Path = Path("runs/train")
    epochs: int = 50
    iterations: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    backbone_lr_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norms_and_biases: bool = True
    schedule: Literal["poly", "poly_epoch", "step", "constant"] = "poly"
    power: float = 0.9
    lr_drops: list[float] = field(default_factory=lambda: [2 / 3])
    warmup: int = 0
    loss: dict[str, float] | str = field(default_factory=lambda: {"cross_entropy": 1.0})
    hard_fraction: float = 0.1
    auxiliary_weight: float = 0.4
    class_weights: Literal["balanced"] | list[float] | None = None
    boundary_distance: int = 5
    boundary_weights: dict[str, float] = field(default_factory=lambda: dict(BOUNDARY_WEIGHTS))
    clip: float | None = None
    freeze_backbone: bool = False
    ema: float | None = None
    patience: int | None = None
    val_every: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    workers: int = 2
    seed: int = 0
    deterministic: bool = False
    checkpoint_every: int | None = None
    init_from: str | None = None
    plugins: list[str] = field(default_factory=list)
    loggers: list[Literal["tensorboard", "wandb"]] | None = None

    def __post_init__(self) -> None:
        at_least = {
            "epochs": 1,
            "batch_size": 1,
            "accumulate": 1,
            "devices": 1,
            "val_every": 1,
            "boundary_distance": 1,
            "workers": 0,
            "warmup": 0,
        }
        for key, least in {**at_least, "iterations": 1, "patience": 1, "checkpoint_every": 1}.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise CrispsegError(f"{key} is {value}; it must be at least {least}")
        for key, hint in get_type_hints(TrainConfig).items():
            if get_origin(hint) is Literal and getattr(self, key) not in get_args(hint):
                raise CrispsegError(
                    f"{key} is {getattr(self, key)!r}{did_you_mean(str(getattr(self, key)), get_args(hint))}"
                )
        for key in ("lr", "weight_decay", "auxiliary_weight", "backbone_lr_factor", "momentum", "power"):
            if not 0 <= getattr(self, key) < math.inf:
                raise CrispsegError(f"{key} is {getattr(self, key)}; it must be a number that is not negative")
        if self.momentum >= 1:
            raise CrispsegError(f"momentum is {self.momentum}; it must be below 1")
        if not self.lr_drops or not all(0 < share < 1 for share in self.lr_drops):
            raise CrispsegError(
                f"lr_drops is {self.lr_drops}; give shares of the training above 0 and below 1, such as [0.5, 0.75]"
            )
        if not 0 <= self.seed < 2**32:
            raise CrispsegError(f"seed is {self.seed}; it must be between 0 and {2**32 - 1}")
        if isinstance(self.class_weights, list) and not all(0 <= weight < math.inf for weight in self.class_weights):
            raise CrispsegError(f"class_weights is {self.class_weights}; none may be negative")
        for name, weight in self.losses.items():
            if name.startswith("{"):  # a mapping that could not be read as one
                raise CrispsegError(f"loss is {name}; write '{{dice: 0.5}}', a number for each name")
            if name not in LOSSES:
                weights = "; give a name, or weights such as {cross_entropy: 1, dice: 0.5}"
                raise CrispsegError(
                    f"unknown loss '{name}'{did_you_mean(name, LOSSES) if name.isidentifier() else weights}"
                )
            if not 0 < weight < math.inf:
                raise CrispsegError(f"the weight of loss {name} is {weight}; it must be positive and finite")
        if not self.losses:
            raise CrispsegError(f"loss names none; give one or more of {', '.join(LOSSES)}")
        for name, weight in self.boundary_weights.items():
            if name not in BOUNDARY_WEIGHTS:
                raise CrispsegError(f"boundary_weights has no '{name}'{did_you_mean(name, BOUNDARY_WEIGHTS)}")
            if not 0 <= weight < math.inf:
                raise CrispsegError(f"boundary_weights: {name} is {weight}; it must be a number that is not negative")
        if self.class_weights is not None and "cross_entropy" not in self.losses:
            raise CrispsegError(
                f"class_weights apply to cross_entropy, but loss is {', '.join(self.losses)}; add it or leave them out"
            )
        if self.augment.photometric and self.model.in_chans == 4:
            raise CrispsegError("augment.photometric is for RGB and grey images; set it to false with model.in_chans 4")
        if self.augment.crop is None and tuple(self.augment.scale) != (1, 1) and self.batch_size > 1:
            raise CrispsegError("without augment.crop, images of a batch differ in size; set augment.scale to [1, 1]")
        if self.augment.crop is not None and min(self.augment.crop) < 32:
            raise CrispsegError(f"augment.crop is {list(self.augment.crop)}; models need at least 32 pixels a side")
        if not 0 < self.hard_fraction <= 1:
            raise CrispsegError(f"hard_fraction is {self.hard_fraction}; it must be above 0 and at most 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise CrispsegError(f"ema is {self.ema}; it must be between 0 and 1, such as 0.999")
        if self.clip is not None and self.clip <= 0:
            raise CrispsegError(f"clip is {self.clip}; it must be positive")

    @property
    def losses(self) -> dict[str, float]:
        """The weight of each loss, by name."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain types only, in the shape of a YAML file, defaults included."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    model = dataclasses.asdict(config.model)
    defaults = {key: option.default for key, option in model_options(config.model.name).items()}
    defaults.pop("auxiliary", None)  # training decides
    model |= defaults | model.pop("options")
    values["model"] = model
    values["data"] = data_to_dict(config.data)
    for holder, key in ((model, "pretrained"), (values, "init_from")):
        if isinstance(holder[key], str) and Path(holder[key]).exists():
            holder[key] = str(Path(holder[key]).absolute())
    values["plugins"] = [str(Path(file).absolute()) for file in config.plugins]
    values["augment"] = dataclasses.asdict(config.augment)
    plain = _plain(values)
    assert isinstance(plain, dict)
    return plain


def data_to_dict(data: DataSource) -> dict[str, Any]:
    """A data source as YAML has it; paths are made absolute, so that it works from any folder."""
    fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}  # type: ignore[arg-type]
    for key, value in fields.items():
        if isinstance(value, str | Path) and Path(value).exists():
            fields[key] = Path(value).absolute()
    plain = _plain({"name": data.name, **fields})
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


__all__ = ["DATA_SOURCES", "ModelConfig", "TrainConfig", "config_to_dict", "data_to_dict"]
