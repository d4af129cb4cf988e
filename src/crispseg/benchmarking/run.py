"""Counting and timing several networks under the same conditions."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crispseg.benchmarking.contenders import Contender, find_contender
from crispseg.benchmarking.counting import count_multiply_adds, count_parameters
from crispseg.benchmarking.timing import Clock, Latency, Stopwatch, latencies, take_turns, wall_clock
from crispseg.config.settings import CHECKS
from crispseg.config.settings import Settings as Checked
from crispseg.errors import CrispsegError, one_line
from crispseg.inference import fold_batch_norms
from crispseg.inference.compiling import compiled
from crispseg.inference.device import usable_device
from crispseg.inference.memory import enough_memory
from crispseg.inference.runtime import ExportedModel
from crispseg.inference.segmenter import as_batch, smooth_outputs, upsampled_argmax
from crispseg.io.images import image_channels
from crispseg.models import SegmentationModel
from crispseg.models.info import MIN_SIDE

Side: TypeAlias = Annotated[int, Field(ge=MIN_SIDE)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Settings(Checked):
    """The conditions, the same for all networks. By default they are those of `crispseg.Segmenter`.

    Args:
        size: height and width of the images in pixels.
        batch: images at a time; prediction takes one.
        backbone: backbone of models whose name has none.
        num_classes: classes of models that were not saved with their own.
        threads: threads of PyTorch on the CPU; by default as many as it chooses.
        device: cpu or cuda; by default CUDA where there is one.
        dtype: fp32, or bf16 to convolve in bfloat16.
        fold: merge batch norms into convolutions.
        channels_last: lay out weights and images that way.
        repeats: rounds that count; in each, every model takes its turn.
        warmup: rounds before, which do not count.
        seed: seed of the random weights and images.
        compile: by torch.compile, in the rounds of warm-up.

    Raises:
        CrispsegError: a value out of range.
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


@dataclass(frozen=True)
class Row:
    """What was found out about one network."""

    model: str
    """As it was asked for."""
    backbone: str
    num_classes: int | None
    """`None` for a backbone, which has no classes."""
    parameters: int
    """Without training-only heads, and before batch norms are merged."""
    multiply_adds: int
    """For one image."""
    milliseconds: dict[str, Latency]
    """`forward`: one call of the network, which ends at logits of the images' size, or at a backbone's features.

    `preprocess`, `network`, `postprocess` and their sum `total`: from images to label maps by the fastest way, for
    a crispseg model and one image that of `Segmenter`. A backbone has the first two only.
    """
    ratio: dict[str, float]
    """`parameters`, `multiply_adds` and the medians of `forward` and `total`, each over the first network's."""
    miou: float | None = None
    """In percent, of the val split in training, where a saved model says it."""


@dataclass(frozen=True)
class Report:
    """All rows, the baseline first, and how they came about."""

    settings: Settings
    device: torch.device
    threads: int
    rows: list[Row]


def benchmark(
    models: Sequence[str],
    settings: Settings,
    *,
    console: Console | None = None,
    clock: Clock | None = None,
) -> Report:
    """Count and time networks in one process, on the same images, in turns.

    Args:
        models: their names, see `find_contender`; the first is the baseline. One given twice is measured twice.
        settings: the conditions.
        console: where a progress bar is shown, if it is a terminal.
        clock: by default the wall clock, at which the device has done all that was asked of it.

    Raises:
        CrispsegError: no names; a name or a device is unknown, a network does not run at this size, or memory is short.
    """
    if not models:
        raise CrispsegError("there is no model to measure; name one, such as sfnet")
    if settings.compile and not settings.warmup:
        raise CrispsegError("warmup is 0, so that compiling would be timed; give 1 or more, or leave compile out")
    device = usable_device(settings.device)
    with torch.random.fork_rng(devices=[]), _threads(settings.threads) as threads:
        torch.manual_seed(settings.seed)
        contenders = [
            find_contender(name, backbone=settings.backbone, num_classes=settings.num_classes) for name in models
        ]
        for contender in contenders:
            if isinstance(contender.net, ExportedModel):
                contender.net.check_use(device, settings.dtype == "bf16", whole=True)
                if settings.compile:
                    raise CrispsegError(f"'{contender.name}' is compiled already; leave compile out")
        counts = [
            (count_parameters(contender.counted or contender.net), _multiply_adds(contender, settings))
            for contender in contenders
        ]
        rounds = range(settings.warmup + settings.repeats)
        console = console or Console(quiet=True)
        with (
            enough_memory("measuring needs", "choose a smaller --size"),
            torch.inference_mode(),
            # Drawn between rounds only: a thread that draws would take time from what is measured.
            Progress(console=console, auto_refresh=False, disable=not console.is_terminal) as progress,
        ):
            deployed = [Deployed(contender, settings, device) for contender in contenders]
            tracked = progress.track(rounds, description="Measuring")
            laps = take_turns(deployed, tracked, warmup=settings.warmup, clock=clock or wall_clock(device))
    rows: list[Row] = []
    bases: dict[str, float] = {}
    for contender, (parameters, multiply_adds), taken in zip(contenders, counts, laps, strict=True):
        times = latencies(taken)
        medians: dict[str, float] = {stage: times[stage].median for stage in ("forward", "total") if stage in times}
        values: dict[str, float] = {"parameters": parameters, "multiply_adds": multiply_adds, **medians}
        bases = bases or values
        ratio = {key: value / bases[key] for key, value in values.items() if key in bases}
        about = contender.name, contender.backbone, contender.num_classes
        rows.append(Row(*about, parameters, multiply_adds, times, ratio, contender.miou))
    return Report(settings, device, threads, rows)


class Deployed:
    """A network on its device. A call measures it once, all stages."""

    def __init__(self, contender: Contender, settings: Settings, device: torch.device) -> None:
        self.contender = contender
        self.device = device
        self.bf16 = settings.dtype == "bf16"
        self.memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        net = _folded(contender, settings) if settings.fold else contender.net.eval()
        self.net: Any = net.to(device, memory_format=self.memory_format)  # type: ignore[call-overload]
        if settings.compile:
            self.compile()
        self.enlarges = not isinstance(net, SegmentationModel) or net.refiner is not None
        shape = (settings.batch, *settings.size, image_channels(contender.normalize.in_chans))
        self.images = np.random.default_rng(settings.seed).integers(0, 256, shape, np.uint8)  # (N, H, W, C)
        self.batch = self.preprocess(self.images)

    def compile(self) -> None:
        """Compile what computes; logits are enlarged and refined as they were."""
        if isinstance(self.net, SegmentationModel):
            self.net = copy.deepcopy(self.net)  # which is not always the contender's own
            self.net.coarse = compiled(self.net.coarse, self.device)
        else:
            self.net = compiled(self.net, self.device)

    def __call__(self, watch: Stopwatch) -> None:
        watch("forward", self.forward, self.batch)
        batch = watch("preprocess", self.preprocess, self.images)
        output = watch("network", self.network, batch)
        if self.contender.num_classes is not None:
            watch("postprocess", self.postprocess, output)
            watch.laps["total"] = sum(watch.laps[stage] for stage in ("preprocess", "network", "postprocess"))

    def preprocess(self, images: NDArray[np.uint8]) -> Tensor:
        """`(N, H, W, C)` → normalised `(N, in_chans, H, W)` on the device."""
        batches = [as_batch(image, self.contender.normalize, self.device) for image in images]
        batch = batches[0] if len(batches) == 1 else torch.cat(batches)
        return batch.contiguous(memory_format=self.memory_format)

    def forward(self, batch: Tensor) -> Tensor:
        """Logits at the images' size, or a backbone's features."""
        return self._run(self.net, batch)

    def network(self, batch: Tensor) -> Tensor:
        """What `postprocess` takes: of a crispseg model without refinement, the logits before they are enlarged."""
        return self._run(self.net if self.enlarges else self.net.coarse_logits, batch)

    def _run(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return function(batch)

    def postprocess(self, logits: Tensor) -> list[NDArray[np.uint8]]:
        """One label map `(H, W)` an image."""
        if self.enlarges:
            # max finds the index several times faster than argmax on a CPU.
            labels = list(logits.max(1).indices.to(torch.uint8))
        else:
            labels = [upsampled_argmax(one[None], self.images.shape[1:3]) for one in logits.float()]
        return [one.cpu().numpy() for one in labels]


def _multiply_adds(contender: Contender, settings: Settings) -> int:
    """Also finds out, before anything takes long, whether the network runs at this size."""
    height, width = settings.size
    try:
        return count_multiply_adds(contender.counted or contender.net, height, width, contender.normalize.in_chans)
    except (AssertionError, RuntimeError, ValueError) as error:  # how networks of other libraries refuse a size
        raise CrispsegError(
            f"'{contender.name}' does not run at {height}×{width} ({one_line(error)}); choose another --size, such as "
            "a multiple of 32"
        ) from error


def _folded(contender: Contender, settings: Settings) -> nn.Module:
    net = contender.net.eval()
    if not any(isinstance(module, _BatchNorm) for module in net.modules()):
        return net
    # Of the true size where that is small, for networks that take one size only.
    height, width = (min(side, 256) for side in settings.size)
    example = torch.randn(1, contender.normalize.in_chans, height, width)
    outputs = (smooth_outputs,) if isinstance(net, SegmentationModel) else ()
    try:
        return fold_batch_norms(net, example, *outputs)
    except (AssertionError, RuntimeError) as error:
        raise CrispsegError(
            f"cannot merge the batch norms of '{contender.name}' ({one_line(error)}); use --fold false"
        ) from error


@contextmanager
def _threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
