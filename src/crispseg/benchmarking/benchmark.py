"""Counting and timing several networks under the same conditions."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import pydantic
import timm
import torch
import yaml
from pydantic import Field, NonNegativeInt, PositiveInt
from rich.console import Console, Group
from rich.progress import Progress
from torch import Tensor, nn

from crispseg.benchmarking.cost import Latency, Stopwatch, count_multiply_adds, count_parameters, take_turns
from crispseg.config.settings import CHECKS, Settings
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.evaluation.bootstrap import text_table
from crispseg.inference import fold_batch_norms
from crispseg.inference.acceleration import compiled
from crispseg.inference.device import processor_name, usable_device
from crispseg.inference.runtime import AnyModel, ExportedModel, is_exported, open_model
from crispseg.inference.segmenter import as_batch, smooth_outputs, upsampled_argmax
from crispseg.io.arrays import Normalize
from crispseg.io.images import image_channels
from crispseg.models import SegmentationModel, create_model, list_models
from crispseg.models.base import described
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import shipped_folder

Side: TypeAlias = Annotated[int, Field(ge=MIN_SIDE)]
STAGES = ("preprocess", "network", "postprocess")


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Conditions(Settings):
    """Conditions of a benchmark, the same for all networks. The defaults are those of `crispseg.Segmenter`.

    Args:
        size: height and width of the images in pixels.
        batch: images at a time.
        backbone: backbone of models whose name has none.
        num_classes: classes of models that are not trained.
        threads: threads of PyTorch on the CPU; PyTorch's own choice by default.
        device: cpu or cuda; by default CUDA if available.
        dtype: fp32, or bf16 to convolve in bfloat16.
        fold: merge batch norms into convolutions.
        channels_last: memory format of weights and images.
        repeats: rounds that count; every model takes its turn in each.
        warmup: rounds before, which do not count.
        seed: seed of the random weights and images.
        compile: use torch.compile, in the rounds of warm-up.

    Raises:
        CrispsegError: a value is out of range.
    """

    size: tuple[Side, Side] = (512, 1024)
    batch: PositiveInt = 1
    backbone: str = "resnet18_deep"
    num_classes: int = Field(default=19, ge=2, le=255)
    threads: int | None = Field(default=None, ge=1, le=os.cpu_count())
    device: str | None = None
    dtype: Literal["fp32", "bf16"] = "fp32"
    fold: bool = True
    channels_last: bool = True
    repeats: PositiveInt = 30
    warmup: NonNegativeInt = 5
    seed: int = Field(default=0, ge=0, lt=2**32)
    compile: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Cost of one network.

    Attributes:
        model: name as it was given.
        parameters: without training-only heads.
        multiply_adds: of one image.
        milliseconds: `forward`, one call of the network, to logits of the images' size; `preprocess`, `network`,
            `postprocess` and their sum `total`, from images to label maps in the way of `Segmenter`.
        ratio: `parameters`, `multiply_adds`, and the medians of `forward` and `total`, over those of the first network.
        miou: mIoU in percent on the val split, of a trained model.
    """

    model: str
    backbone: str
    num_classes: int
    parameters: int
    multiply_adds: int
    milliseconds: dict[str, Latency]
    ratio: dict[str, float]
    miou: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows of a benchmark, the baseline first, and their conditions."""

    conditions: Conditions
    device: torch.device
    threads: int
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        settings = dataclasses.asdict(self.conditions) | {"threads": self.threads, "device": str(self.device)}
        models = [dataclasses.asdict(row) for row in self.rows]
        for model, row in zip(models, self.rows, strict=True):
            model["milliseconds"] = {stage: latency._asdict() for stage, latency in row.milliseconds.items()}
        versions = {"torch": torch.__version__, "timm": timm.__version__}
        name = processor_name(self.device)
        return {"settings": settings, "processor": name, "versions": versions, "models": models}

    def tables(self) -> Group:
        """Return tables for a terminal."""
        network, labels = [], []
        for row in self.rows:
            forward, total = row.milliseconds["forward"], row.milliseconds["total"]
            counts = f"{row.parameters / 1e6:.2f}", f"{row.multiply_adds / 1e9:.2f}"
            network.append([row.model, *counts, *(f"{ms:.1f}" for ms in forward), f"{row.ratio['forward']:.2f}"])
            stages = [f"{row.milliseconds[stage].median:.1f}" for stage in STAGES]
            labels.append([row.model, *stages, *(f"{ms:.1f}" for ms in total), f"{row.ratio['total']:.2f}"])
        where = f"{processor_name(self.device)}, {self.threads} threads, torch {torch.__version__}"
        size = "×".join(map(str, self.conditions.size))
        head = ["model", "M parameters", "G multiply-adds", "ms", "p95", "×"]
        tail = ["model", *STAGES, "total", "p95", "×"]
        return Group(
            text_table(head, network, title=f"One call of the network, {size} pixels"),
            text_table(tail, labels, title="From images to label maps, in milliseconds"),
            f"Medians of {self.conditions.repeats} rounds. ×: over {self.rows[0].model}. {where}",
        )


def benchmark(models: Sequence[str], conditions: Conditions, *, console: Console | None = None) -> Report:
    """Count and time networks in one process, on the same images, in turns.

    Args:
        models: names, see `find_network`; the first is the baseline.
        conditions: the conditions.
        console: console of a progress bar.

    Raises:
        CrispsegError: a name or a device is unknown, or a network does not take this size.
    """
    if conditions.compile and not conditions.warmup:
        raise CrispsegError("warmup is 0, so compiling would be timed; give 1 or more")
    device = usable_device(conditions.device)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(conditions.threads or threads)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(conditions.seed)
            networks = [find_network(name, conditions) for name in models]
            height, width = conditions.size
            counts = [_counts(network, height, width) for network in networks]
            deployed = [Deployed(network, conditions, device) for network in networks]
            rounds = range(conditions.warmup + conditions.repeats)
            # Without a thread that draws: it would take time from what is measured.
            with Progress(console=console or Console(quiet=True), auto_refresh=False) as progress:
                tracked = progress.track(rounds, description="Measuring")
                times = take_turns(deployed, tracked, warmup=conditions.warmup, device=device)
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    bases: dict[str, float] = {}
    for name, network, count, stages in zip(models, networks, counts, times, strict=True):
        values = count | {stage: stages[stage].median for stage in ("forward", "total")}
        bases = bases or values
        ratio = {key: value / bases[key] for key, value in values.items()}
        info = network.info
        about = name, info.backbone, info.num_classes, count["parameters"], count["multiply_adds"]
        rows.append(Row(*about, stages, ratio, info.metrics.get("val_miou")))
    return Report(conditions, device, used, rows)


def find_network(name: str, conditions: Conditions) -> AnyModel:
    """Return the network that a name means, in eval mode.

    Args:
        name: `MODEL` or `MODEL:BACKBONE` of `crispseg.create_model`, with options in braces as in
            `sfnet:resnet50{fuse: add}`; or a run, a saved model, a hub id, a bundled model, or an exported file.
        conditions: backbone and classes of models that are not trained.

    Raises:
        CrispsegError: the name is unknown, or its options are unreadable.
    """
    plain, brace, written = name.partition("{")
    kind, _, backbone = plain.strip().partition(":")
    if kind in list_models():
        try:
            options = yaml.safe_load(brace + written or "{}")
        except yaml.YAMLError:
            options = None
        if not isinstance(options, dict):
            raise CrispsegError(f"'{name}' has no readable options; write '{{option: value}}' at the end of the name")
        backbone = backbone or conditions.backbone
        return create_model(kind, num_classes=conditions.num_classes, backbone=backbone, **options).eval()
    if is_exported(name) or "/" in name or Path(name).is_dir() or shipped_folder(name):
        return open_model(name).eval()
    raise CrispsegError(f"unknown model '{name}'{did_you_mean(kind, list_models())}")


def _counts(network: AnyModel, height: int, width: int) -> dict[str, int]:
    counted: nn.Module = network
    if isinstance(network, ExportedModel):
        with torch.device("meta"):
            counted = described(network.info)
    counts = count_multiply_adds(counted, height, width, network.info.in_chans)
    return {"parameters": count_parameters(counted), "multiply_adds": counts}


class Deployed:
    """A network on its device. A call measures it once, all stages."""

    def __init__(self, network: AnyModel, conditions: Conditions, device: torch.device) -> None:
        self.device, self.bf16 = device, conditions.dtype == "bf16"
        self.memory_format = torch.channels_last if conditions.channels_last else torch.contiguous_format
        info = network.info
        self.normalize = Normalize(info.mean, info.std, info.in_chans)
        net: Any = network
        if isinstance(network, ExportedModel):
            network.check_use(device, self.bf16, whole=True)
            if conditions.compile:
                raise CrispsegError("an exported file is compiled already; leave compile out")
        elif conditions.fold:
            net = fold_batch_norms(network, torch.randn(1, info.in_chans, 256, 256), smooth_outputs)
        self.net = net.to(device, memory_format=self.memory_format)
        if conditions.compile:
            self.net = copy.deepcopy(self.net)  # folding may have returned the same network
            self.net.coarse = compiled(self.net.coarse, device)
        self.upsamples = not isinstance(network, SegmentationModel) or network.refiner is not None
        shape = (conditions.batch, *conditions.size, image_channels(info.in_chans))
        self.images = np.random.default_rng(conditions.seed).integers(0, 256, shape, np.uint8)  # (N, H, W, C)
        self.batch = self.preprocess()

    def __call__(self, watch: Stopwatch) -> None:
        watch("forward", self._run, self.net, self.batch)
        batch = watch("preprocess", self.preprocess)
        # Of a model without refinement, label maps are made of the logits before they are upsampled.
        logits = watch("network", self._run, self.net if self.upsamples else self.net.coarse_logits, batch)
        watch("postprocess", self.postprocess, logits)
        watch.laps["total"] = sum(watch.laps[stage] for stage in STAGES)

    def preprocess(self) -> Tensor:
        """Return the images as a normalised batch `(N, in_chans, H, W)` on the device."""
        batch = torch.cat([as_batch(image, self.normalize, self.device) for image in self.images])
        return batch.contiguous(memory_format=self.memory_format)

    def postprocess(self, logits: Tensor) -> list[Any]:
        """Return one label map `(H, W)` an image."""
        if self.upsamples:
            labels = list(logits.max(1).indices.to(torch.uint8))  # several times faster than argmax on a CPU
        else:
            labels = [upsampled_argmax(one[None], self.images.shape[1:3]) for one in logits.float()]
        return [one.cpu().numpy() for one in labels]

    def _run(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return function(batch)
