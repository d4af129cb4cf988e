"""One image through a model, with everything that the model computed on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crispseg.decoders import DeformableFuse
from crispseg.errors import CrispsegError
from crispseg.inference.segmenter import Source, as_batch, check_finite, read_source, usable_device
from crispseg.labels import IGNORE, LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.agln import SemanticAggregation, SemanticDistribution
from crispseg.models.ddsm import DDSM
from crispseg.models.info import ModelInfo
from crispseg.models.sfnet import FlowAlignment
from crispseg.nn import DeformableAttention, record
from crispseg.normalize import Normalize
from crispseg.visuals import error_map

PIXELS = 2**20
"""An image of more pixels is inspected as a reduced copy: what is recorded is some GB at most, of a wide dense AGLN."""
PROBABILITIES = 2**26
"""Nor are there more values, classes × pixels, of the full-size logits: 256 MiB."""

PARTS = (FlowAlignment, DDSM, DeformableFuse, SemanticAggregation, SemanticDistribution, DeformableAttention)
"""What can be looked into."""

INPUTS = {
    FlowAlignment: {"compress_fine": "fine", "compress_coarse": "coarse"},
    SemanticDistribution: {"psi": "A_M", "varphi": "A"},
}
"""Layers of a part whose input is recorded too, under a name of its own, as if there were a tap."""
OUTPUTS: dict[type[nn.Module], dict[str, str]] = {
    SemanticDistribution: {"varphi": "scores"},
    DeformableFuse: {"": "fused"},
}
"""The same of outputs; "" is the part itself."""


class Part(NamedTuple):
    """A part of the model that ran."""

    kind: type[nn.Module]
    title: str
    """For people, such as "F5 → F4" for the step from F5 to F4."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """An image, what a model says about it, and what the model computed on the way.

    Sizes are those of the inspected image, H × W, which may be a reduced copy (`original_size`). Positions in the image
    are in pixels, x to the right and y downwards, and (0, 0) is the centre of the first pixel.
    """

    name: str
    """Stem of the image's file, or "image"."""
    info: ModelInfo = field(repr=False)
    original_size: tuple[int, int]
    """Height and width of the image before it was reduced."""
    input_size: tuple[int, int]
    """Height and width of what the model was given: H and W, or 32 where they are less."""
    image: NDArray[np.uint8] = field(repr=False)
    """`(H, W, 3)` RGB."""
    probabilities: NDArray[np.float32] = field(repr=False)
    """Of each class, `(C, H, W)`."""
    labels: NDArray[np.uint8] = field(repr=False)
    """`(H, W)` class ids."""
    truth: NDArray[np.uint8] | None = field(repr=False, default=None)
    """`(H, W)` class ids, 255 for ignored pixels."""
    unrefined: NDArray[np.uint8] | None = field(repr=False, default=None)
    """`(H, W)` class ids before refinement; None, as the next three, of a model without one."""
    boundary: NDArray[np.float32] | None = field(repr=False, default=None)
    """Probability of each pixel to be on a boundary, `(H, W)`."""
    direction: NDArray[np.uint8] | None = field(repr=False, default=None)
    """Most likely direction to the inside, `(H, W)`: an index of `crispseg.refinement.targets.STEPS`."""
    offsets: NDArray[np.int8] | None = field(repr=False, default=None)
    """From where each pixel takes its logits, `(2, H, W)`, x and y in pixels; 0 where nothing moves."""
    taps: dict[str, Tensor] = field(repr=False, default_factory=dict)
    """What `crispseg.record` saw and `INPUTS` and `OUTPUTS` add, in the order in which it was computed: float32 on the
    CPU, without the batch dimension."""
    parts: dict[str, Part] = field(repr=False, default_factory=dict)
    """Parts that ran, by their path in the model, in that order."""

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes."""
        return self.info.label_set()

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        height, width = self.labels.shape
        return height, width

    def confidence(self) -> NDArray[np.float32]:
        """Probability of the most likely class, `(H, W)`, 1 / C to 1."""
        best: NDArray[np.float32] = self.probabilities.max(axis=0)
        return best

    def entropy(self, normalised: bool = False) -> NDArray[np.float32]:
        """−Σ p ln p over the classes, `(H, W)`: in nats, or, normalised, as a share of its largest value, ln C."""
        total = np.zeros(self.size, np.float32)
        for p in self.probabilities:
            total -= p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
        total = np.maximum(total, 0)
        return total / np.float32(math.log(len(self.probabilities))) if normalised else total

    def errors(self) -> NDArray[np.uint8]:
        """Right pixels black, wrong ones in their true class's colour, ignored ones grey, `(H, W, 3)` (SFNet, Fig. 6).

        Raises:
            CrispsegError: the inspection has no truth.
        """
        return error_map(self.labels, self.known_truth(), self.label_set.palette)

    def accuracy(self) -> float:
        """Share of the pixels that count which are right, 0 to 1; NaN if none counts.

        Raises:
            CrispsegError: the inspection has no truth.
        """
        truth = self.known_truth()
        counts = truth != IGNORE
        return float((self.labels == truth)[counts].mean()) if counts.any() else math.nan

    def known_truth(self) -> NDArray[np.uint8]:
        """The truth.

        Raises:
            CrispsegError: the inspection has none.
        """
        if self.truth is None:
            raise CrispsegError(f"the inspection of {self.name} has no truth; give inspect_image the mask")
        return self.truth

    def of(self, kind: type[nn.Module]) -> list[str]:
        """Paths of the parts of a kind, in the order in which they ran, the coarsest level first."""
        return [name for name, part in self.parts.items() if part.kind is kind]

    def tap(self, part: str, name: str) -> Tensor:
        """A recorded tensor of a part, without the batch dimension."""
        return self.taps[f"{part}.{name}"]


def inspect_image(
    model: SegmentationModel,
    image: Source,
    truth: NDArray[np.uint8] | None = None,
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
    pixels: int = PIXELS,
) -> Inspection:
    """Run a model once on an image and keep what it computes on the way.

    Args:
        model: to look into; it is put on `device` and left in eval mode.
        image: a file's path, a PIL image, or an array (see `crispseg.inference.segmenter.Source`).
        truth: `(H, W)` class ids of the image, 255 for ignored pixels.
        name: of the image, by default that of its file.
        device: by default a CUDA device where there is one, else the CPU.
        pixels: larger images are reduced by averaging, and their truth to the nearest pixel, until they have no more.

    Raises:
        CrispsegError: an image that cannot be read; a truth of another size or with ids that are no class; weights that
            are not finite, or computed values; no such device.
    """
    info = model.info
    array, path = read_source(image, info.in_chans)
    name = name or (path.stem if path else "image")
    original = array.shape[0], array.shape[1]
    if truth is not None:
        check_truth(truth, original, info.num_classes, name)
    factor = reduction(original, info.num_classes, pixels)
    if factor < 1:
        height, width = (max(round(side * factor), 1) for side in original)
        array = np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if truth is not None:
            truth = np.asarray(cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    check_finite(model)
    target = usable_device(device)
    model = model.to(target).eval()
    batch = as_batch(array, Normalize(info.mean, info.std, info.in_chans), target)
    with torch.inference_mode(), _watched(model) as seen:
        outputs = model.outputs(batch)
        moved = None
        if outputs.boundary is not None and outputs.direction is not None:
            assert model.refiner is not None
            moved = model.refiner.offsets(outputs.boundary, outputs.direction)
    if wrong := [key for key, value in {**seen, "logits": outputs.logits}.items() if not value.isfinite().all()]:
        raise CrispsegError(
            f"of {name}, {info.name} computes {wrong[0]} with values that are not finite; take an earlier checkpoint"
        )
    crop = (..., slice(array.shape[0]), slice(array.shape[1]))
    logits = outputs.logits[0][crop]
    refined: dict[str, Any] = {}
    if outputs.unrefined is not None and outputs.boundary is not None and outputs.direction is not None:
        assert moved is not None
        refined = {
            "unrefined": _ids(outputs.unrefined[0][crop]),
            "boundary": outputs.boundary[0, 0][crop].float().sigmoid().cpu().numpy(),
            "direction": _ids(outputs.direction[0][crop]),
            "offsets": _inside(moved[0].to("cpu", torch.int8).numpy())[crop],
        }
    order = list(dict.fromkeys(key.rpartition(".")[0] for key in seen))
    return Inspection(
        name,
        info,
        original,
        (batch.shape[-2], batch.shape[-1]),
        np.ascontiguousarray(array[..., :3]),
        logits.float().softmax(0).cpu().numpy(),
        _ids(logits),
        truth,
        **refined,
        taps={key: value[0].float().cpu() for key, value in seen.items()},
        parts=_parts(model, order),
    )


def reduction(size: tuple[int, int], classes: int, pixels: int = PIXELS) -> float:
    """The factor by which the sides of an image `(H, W)` are reduced before it is inspected, at most 1."""
    height, width = size
    return min(1.0, math.sqrt(min(pixels, PROBABILITIES // classes) / (height * width)))


def check_truth(truth: NDArray[Any], size: tuple[int, int], classes: int, name: str) -> None:
    """See that class ids belong to an image of `size`, height and width.

    Raises:
        CrispsegError: another size, or ids that are neither a class nor 255.
    """
    if truth.shape != size:
        shown = "×".join(map(str, truth.shape))
        raise CrispsegError(
            f"the truth of {name} is {shown} but the image {size[0]}×{size[1]} (height × width); "
            "give the mask of this image, at its size"
        )
    wrong = np.unique(truth[(truth >= classes) & (truth != IGNORE)])
    if wrong.size:
        raise CrispsegError(
            f"the truth of {name} holds {', '.join(map(str, wrong[:5]))}, but the model's classes are 0 to "
            f"{classes - 1}; correct the mask, with {IGNORE} where a pixel should not count"
        )


def _inside(offsets: NDArray[np.int8]) -> NDArray[np.int8]:
    """Offsets `(2, H, W)` that lead outside, where the nearest pixel of the edge counts, as those that lead to it."""
    shortened = np.empty_like(offsets)
    for axis, length in enumerate(offsets.shape[:0:-1]):  # x and W, y and H
        places = np.arange(length) if axis == 0 else np.arange(length)[:, None]
        shortened[axis] = np.clip(places + offsets[axis], 0, length - 1) - places
    return shortened


def _ids(scores: Tensor) -> NDArray[np.uint8]:
    """Index of the largest of `(C, H, W)` → `(H, W)`."""
    # max finds the index several times faster than argmax on a CPU.
    return scores.max(0).indices.to("cpu", torch.uint8).numpy()


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """`record`, and the inputs and outputs named by `INPUTS` and `OUTPUTS`."""
    with record(model) as seen, ExitStack() as hooks:

        def keep_input(key: str) -> Any:
            def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                seen[key] = args[0].detach()

            return hook

        def keep_output(key: str) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
                seen[key] = output.detach()

            return hook

        for path, module in model.named_modules():
            for wanted, register, keep in (
                (INPUTS, "register_forward_pre_hook", keep_input),
                (OUTPUTS, "register_forward_hook", keep_output),
            ):
                for layer, key in wanted.get(type(module), {}).items():
                    watched = getattr(module, layer) if layer else module
                    if watched is not None:
                        handle = getattr(watched, register)(keep(f"{path}.{key}"))
                        hooks.callback(handle.remove)
        yield seen


def _parts(model: nn.Module, order: list[str]) -> dict[str, Part]:
    """The parts whose taps were seen, in the order of their first one; `order` is that of the taps' modules."""
    modules = dict(model.named_modules())
    found: dict[str, Part] = {}
    for inner in order:
        steps = inner.split(".")
        for end in range(1, len(steps) + 1):
            path = ".".join(steps[:end])
            module = modules.get(path)
            if path not in found and isinstance(module, PARTS):
                found[path] = Part(type(module), part_title(model, path))
    return found


def part_title(model: nn.Module, path: str) -> str:
    """What a part does, for people: "F5 → F4", "F4 → F3, block 2", "descriptors of F5", "layer 2, cross-attention"."""
    levels = getattr(getattr(model, "decoder", None), "fuse_levels", None)
    if levels and (step := re.search(r"\bfuses\.(\d+)(?:\.blocks\.(\d+))?", path)):
        coarse = levels[int(step[1])]
        if path.endswith(".sab"):
            return f"descriptors of F{coarse}"
        block = f", block {int(step[2]) + 1}" if step[2] else ""
        return f"F{coarse} → F{coarse - 1}{block}"
    if levels and (merged := re.search(r"\bmerge\.fams\.(\d+)$", path)):
        return f"F{levels[int(merged[1])]} → F{levels[0] - 1}, merge"
    if levels and (gathered := re.search(r"\bgathers\.(\d+)$", path)):
        return f"descriptors of F{levels[-1] - int(gathered[1])}"
    if layer := re.search(r"\b(encoder|decoder)\.(\d+)\.(\w+)$", path):
        return f"{layer[1]} layer {int(layer[2]) + 1}, {layer[3].replace('_', '-')}"
    return "F5 → F2" if path.endswith("decoder.fuse") else path
