"""Parameters, multiply-adds and latencies of several networks under the same conditions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.benchmark.utils.common import set_torch_threads

from crispseg.benchmarking.cost import Latency, count_multiply_adds, count_parameters, take_turns
from crispseg.config.settings import CHECKS, Settings, Text, checked
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.evaluation.bootstrap import text_table
from crispseg.inference import Segmenter
from crispseg.inference.device import FloatPrecision, processor_name, usable_device
from crispseg.inference.runtime import AnyModel, ExportedModel, is_exported, open_model
from crispseg.io.images import image_channels
from crispseg.models import create_model, list_models
from crispseg.models.base import described
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import shipped_folder


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Conditions(Settings):
    """Conditions of a benchmark, the same for all networks.

    Args:
        size: height and width of the image in pixels.
        backbone: backbone of models without one in their name.
        num_classes: number of classes of untrained models.
        threads: PyTorch threads on the CPU; by default PyTorch decides.
        device: cpu or cuda; by default CUDA if available.
        precision: fp32 or bf16.
        repeats: measured rounds; every model runs once in each.
        warmup: rounds before these, which are not measured.
        compile: use torch.compile, which compiles in the warm-up rounds.
    """

    size: tuple[Annotated[int, Field(ge=MIN_SIDE)], Annotated[int, Field(ge=MIN_SIDE)]] = (512, 1024)
    backbone: str = "resnet18_deep"
    num_classes: int = Field(default=19, ge=2, le=255)
    threads: int | None = Field(default=None, ge=1, le=os.cpu_count())
    device: str | None = None
    precision: FloatPrecision = "fp32"
    repeats: PositiveInt = 30
    warmup: PositiveInt = 5
    compile: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Cost of one network under its given name.

    Attributes:
        parameters: number of parameters, without training-only heads.
        multiply_adds: multiply-adds for one image.
        milliseconds: `forward`, from a batch of one image to its logits; `total`, from the image to its labels.
        miou: mIoU of a trained model on the val split, in percent.
    """

    model: str
    backbone: str
    num_classes: int
    parameters: int
    multiply_adds: int
    milliseconds: dict[str, Latency]
    miou: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows of a benchmark, the baseline first, and its conditions."""

    conditions: Conditions
    device: torch.device
    threads: int
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        settings = dataclasses.asdict(self.conditions) | {"threads": self.threads, "device": str(self.device)}
        settings |= {"processor": processor_name(self.device), "torch": torch.__version__}
        return {"settings": settings, "models": [dataclasses.asdict(row) for row in self.rows]}

    def figure(self) -> Figure:
        """Draw images per second, without preparation, and mIoU of the trained networks (SFNet, Fig. 1).

        Untrained networks are left out; without a trained one, it raises a `CrispsegError`.
        """
        trained = [(row.model, row.milliseconds["forward"], row.miou) for row in self.rows if row.miou is not None]
        if not trained:
            raise CrispsegError("no model has a val mIoU to plot; give runs or saved models instead of names")
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        for model, forward, miou in trained:
            speed = 1000 / forward.median
            axes.plot(speed, miou, "o")
            axes.annotate(model, (speed, miou), xytext=(4, 4), textcoords="offset points")
        axes.set(xlabel=f"images per second on {processor_name(self.device)}", ylabel="mIoU on val, %")
        axes.margins(0.2)
        return figure

    def table(self) -> Table:
        """Return a table for a terminal, with `total` relative to the first network."""
        rows, baseline = [], self.rows[0].milliseconds["total"].median
        for row in self.rows:
            forward, total = row.milliseconds["forward"], row.milliseconds["total"]
            counts = f"{row.parameters / 1e6:.2f}", f"{row.multiply_adds / 1e9:.2f}"
            times = (f"{ms:.1f}" for ms in (forward.median, forward.p95, total.median, total.p95))
            rows.append([row.model, *counts, *times, f"{total.median / baseline:.2f}"])
        size = "×".join(map(str, self.conditions.size))
        head = ["model", "M params", "G MACs", "forward ms", "p95", "total ms", "p95", "×"]
        where = f"{size} pixels, {processor_name(self.device)}, {self.threads} threads, torch {torch.__version__}"
        return text_table(head, rows, title=where)


def benchmark(models: Sequence[str], conditions: Conditions, *, console: Console | None = None) -> Report:
    """Measure networks in one process, on the same image, in turns.

    Names are those of `find_network`; the first is the baseline. The console shows a progress bar.

    Raises:
        CrispsegError: a name or a device is unknown, or a network does not support this size.
    """
    device = usable_device(conditions.device)
    threads = conditions.threads or torch.get_num_threads()
    with set_torch_threads(threads), torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        networks = [find_network(name, conditions) for name in models]
        contenders = [stages(network, conditions, device) for network in networks]
        times = take_turns(contenders, conditions.repeats, conditions.warmup, device, console)
    rows = []
    for name, network, milliseconds in zip(models, networks, times, strict=True):
        info = network.info
        counted: nn.Module = described(info) if isinstance(network, ExportedModel) else network
        counts = count_parameters(counted), count_multiply_adds(counted, *conditions.size, info.in_chans)
        rows.append(Row(name, info.backbone, info.num_classes, *counts, milliseconds, info.metrics.get("val_miou")))
    return Report(conditions, device, threads, rows)


def find_network(name: str, conditions: Conditions) -> AnyModel:
    """Return a network by name, in eval mode.

    Names are `MODEL` or `MODEL:BACKBONE` of `crispseg.create_model`, with options in braces as in
    `sfnet:resnet50{fuse: add}`. A run, saved model, hub id, bundled model or exported file works too.
    """
    words, brace, written = name.partition("{")
    kind, _, backbone = words.strip().partition(":")
    if kind in list_models():
        options = checked(dict[str, Any], Text(brace + written or "{}"), f"'{name}'")
        backbone = backbone or conditions.backbone
        return create_model(kind, num_classes=conditions.num_classes, backbone=backbone, **options).eval()
    if is_exported(name) or "/" in name or Path(name).is_dir() or shipped_folder(name):
        return open_model(name).eval()
    raise CrispsegError(f"unknown model '{name}'{did_you_mean(kind, list_models())}")


def stages(network: AnyModel, conditions: Conditions, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Return the timed stages of a network in `Segmenter`, by name; see `Row.milliseconds`."""
    segmenter = Segmenter(network, device, precision=conditions.precision, compile=conditions.compile)
    shape = (*conditions.size, image_channels(network.info.in_chans))
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = torch.randn(1, network.info.in_chans, *conditions.size, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)

    def forward() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=conditions.precision == "bf16"):
            return segmenter._model(batch)

    return {"forward": forward, "total": lambda: segmenter.labels(image)}
