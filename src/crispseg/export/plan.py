"""Choices of an export, its traced graph and its metadata."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from crispseg.compat import features_of_any_size, plain_window_attention, whole_number_padding
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import CHECKED, reference, smooth_images
from crispseg.export.gathered_rows import gather_rows, with_row_sums
from crispseg.export.pixels import Pixels
from crispseg.export.quantization import Calibration, Input
from crispseg.inference.acceleration import fold_batch_norms
from crispseg.inference.runtime import pixels_of
from crispseg.inference.segmenter import smooth_outputs
from crispseg.inference.tiling import peak_bytes
from crispseg.io.images import image_channels
from crispseg.io.value_range import OF_IMAGE
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.info import FORMAT_VERSION, MIN_SIDE

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
Sampling: TypeAlias = Literal["grid_sample", "gather"]
Output: TypeAlias = Literal["logits", "labels", "probabilities"]

EXAMPLE = (2, 97, 130)
"""Number of images, height and width of the traced input; no two sizes in it or its features are equal by chance."""
TRACED_SIDE = 64
"""Least side of a traced image, whose features at stride 32 have two pixels: the tracer asks whether they have one."""


@dataclass(frozen=True, eq=False)
class ExportPlan:
    """Choices of an export; `export_model` explains them."""

    model: SegmentationModel
    precision: Precision = "fp32"
    sampling: Sampling = "grid_sample"
    input: Input = "float"
    output: Output = "logits"
    size: tuple[int, int] | None = None
    data: Calibration | None = None
    resolution: float | None = None  # side of a pixel in centimetres

    def trace(self, *, bf16: bool = False) -> ExportedProgram:
        """Trace the forward pass of the folded model, for one image of the size or with symbolic batch and size."""
        in_chans = self.model.info.in_chans
        plain = reference(self.model)
        plain.auxiliary_heads = None
        network = fold_batch_norms(plain, smooth_images((1, 64, 64), in_chans), smooth_outputs)
        plain_window_attention(network)
        if self.sampling == "gather":
            network = with_row_sums(network)
        # In PyTorch a lower bound of 2 means "one or more", because it handles 0 and 1 separately and checks neither.
        least = {"batch": 2, "height": TRACED_SIDE, "width": TRACED_SIDE, "channels": 2}
        dynamic = {axis: Dim(name, min=least[name]) for axis, name in self.free_axes.items()}
        images = smooth_images((1, *self.size) if self.size else EXAMPLE, in_chans)
        normalize: nn.Module = nn.Identity()
        if self.input == "uint8":
            images, normalize = pixels_of(images, self.model.info), Pixels(self.model.info)
        traced = InFile(network, bf16, self.output, normalize, self.model.info.temperature)
        with exporting():
            program = graph_of(traced, images, dynamic)
            if self.sampling == "gather":
                program = gather_rows(program)
        for module in program.graph_module.modules():
            if isinstance(module, GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # contains paths of this machine
        accept_small_images(program)
        return program

    @property
    def compared_sizes(self) -> Sequence[tuple[int, int, int]]:
        """Number of images, height and width of the comparisons with the model."""
        return CHECKED if self.size is None else [(2, *self.size)]

    def metadata(self, **more: Any) -> str:
        """Return the metadata of the file, see `describe`."""
        if self.size:
            more["size"] = self.size
        more |= {"precision": self.precision, "bytes_per_pixel": self.bytes_per_pixel}
        return describe(self.model.info, self.input, self.output, **more)

    @property
    def free_axes(self) -> dict[int, str]:
        """Axes of the input that may have any size, and their names."""
        if self.size:
            return {}
        if self.input == "float":
            return {0: "batch", 2: "height", 3: "width"}
        return {0: "batch", 1: "height", 2: "width"} | ({3: "channels"} if self.model.info.in_chans == 1 else {})

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Memory of the model per pixel of an image, which other runtimes cannot measure."""
        images = torch.zeros(1, self.model.info.in_chans, 256, 256)
        with torch.inference_mode():
            need = peak_bytes(lambda: reference(self.model)(images))
        return need / images[0, 0].numel()


def graph_of(network: nn.Module, images: Tensor, dynamic: dict[int, Any]) -> ExportedProgram:
    """Trace a network; raise a CrispsegError if it cannot be traced for all sizes."""
    shapes = {"images": dynamic} if dynamic else None
    try:
        return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # tracers raise almost anything
        if not dynamic:
            raise
        reason = f"{type(error).__name__}: {one_line(error):.200}"
        raise CrispsegError(f"no graph for all sizes; give size, a height and width of images ({reason})") from error


def accept_small_images(program: ExportedProgram) -> None:
    """Let a graph traced from `TRACED_SIDE` pixels on take those from `MIN_SIDE` on, at which files are compared."""
    for side, bounds in program.range_constraints.items():
        if bounds.lower == TRACED_SIDE:
            program.range_constraints[side] = type(bounds)(MIN_SIDE, bounds.upper)


class InFile(nn.Module):
    """Model that convolves in bfloat16, like `Segmenter`, and computes the output of its file."""

    def __init__(self, model: nn.Module, bf16: bool, output: Output, normalize: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.bf16, self.output, self.normalize = model, bf16, output, normalize
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if self.bf16 else nullcontext():
            logits: Tensor = self.model(self.normalize(images))
        return OF_LOGITS[self.output](logits.float(), self.temperature)


OF_LOGITS: dict[Output, Callable[[Tensor, float], Tensor]] = {
    "logits": lambda logits, temperature: logits,
    "probabilities": lambda logits, temperature: (logits / temperature).softmax(1),
    "labels": lambda logits, temperature: logits.argmax(1).to(torch.uint8),
}
"""Outputs of a file from logits `(N, num_classes, H, W)` and the temperature."""


def describe(info: ModelInfo, input: Input = "float", output: Output = "logits", **more: Any) -> str:
    """Return the metadata of a file as JSON: `config.json` without the training recipe."""
    from crispseg import __version__

    labels = info.label_set()
    sides = "N 1, H {}, W {}".format(*more["size"]) if "size" in more else f"H and W at least {MIN_SIDE}"
    outputs = {
        "logits": f"float32 (N, {info.num_classes}, H, W), the label of a pixel is the index of the largest",
        "probabilities": f"float32 (N, {info.num_classes}, H, W), 0 to 1",
        "labels": "uint8 (N, H, W), class ids",
    }
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "crispseg_version": __version__,
        **asdict(info),
        "class_names": labels.names,
        "palette": labels.palette,
        "input": input,
        "images": images_of(info, input, sides),
        "output": output,
        output: outputs[output],
        **more,
    }
    del record["recipe"]
    return json.dumps(record)


def images_of(info: ModelInfo, input: Input, sides: str) -> str:
    """Describe the images that a file accepts."""
    channels = "RGB" if info.in_chans == 3 else f"{info.in_chans} channels"
    if input == "uint8":
        kind, count = "uint16" if info.value_range else "uint8", image_channels(info.in_chans)
        decoded = "RGB, or grey as (N, H, W, 1) if H and W are free" if info.in_chans == 1 else channels
        return f"{kind} (N, H, W, {count}), {sides}: {decoded} as in the image file"
    deep = f"; 16-bit values are clipped to {info.value_range}, which is 0 to 1" if info.value_range else ""
    if info.value_range == "image":
        deep = f"; 0 and 1 are the percentiles {OF_IMAGE} of each image"
    return f"float32 (N, {info.in_chans}, H, W), {sides}: ({channels} in 0 to 1 - mean) / std{deep}"


@contextmanager
def exporting() -> Iterator[None]:
    """Configure PyTorch and timm for an export, without internal messages of the exporters."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with whole_number_padding(), features_of_any_size(), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(silenced)
