"""Inspection of one image: labels of a model and its intermediate values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError, few
from crispseg.evaluation.recorded import read_truth
from crispseg.inference.device import usable_device
from crispseg.inference.image_files import Source, read_source
from crispseg.inference.runtime import AnyModel
from crispseg.inference.segmenter import as_batch, check_finite
from crispseg.io.images import as_picture, colorize
from crispseg.io.opening import faults
from crispseg.labels import IGNORE, LabelSet
from crispseg.models.info import ModelInfo
from crispseg.nn import record
from crispseg.visualization.pictures import error_colors

MOST_PIXELS = 2**20  # larger images are reduced, so that recorded values take a few GB at most (wide AGLN)
KINDS = {"fam": "warped", "dcn": "fused", "ddsm": "x_l", "cfb": "sdm.M", "attention": "locations"}  # part → its tap


class Part(NamedTuple):
    """Part of the model that ran: one of `KINDS`, and a title, such as "F5 → F4" for that step."""

    kind: str
    title: str


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """Image, the labels that a model predicts, and the model's intermediate values.

    H × W is the size of the inspected image, which may be a reduced copy.

    Args:
        name: stem of the image's file, or "image".
        info: info of the model.
        original_size: height and width of the image before reduction.
        input_size: height and width of the model's input: H and W, or more with padding.
        align_corners: levels are aligned with the image at the centres of corner pixels, not at the edges.
        image: RGB image `(H, W, 3)`.
        probabilities: class probabilities `(C, H, W)`.
        labels, truth: class ids `(H, W)`; ignored pixels are 255 in the truth.
        unrefined: class ids before refinement, `(H, W)`; None for a model without refinement.
        boundary: boundary probability of each pixel, `(H, W)`; None for a model without refinement.
        taps: values of `crispseg.record`, in the order of computation: float32 on the CPU, without the batch dimension.
        parts: parts in the order in which they ran, by their path in the model.
    """

    name: str
    info: ModelInfo
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    align_corners: bool
    image: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None = None
    unrefined: NDArray[np.uint8] | None = None
    boundary: NDArray[np.float32] | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes."""
        return self.info.label_set()

    @property
    def size(self) -> tuple[int, int]:
        """Height H and width W of the inspected image."""
        height, width = self.labels.shape
        return height, width

    def colors(self, ids: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return class ids `(H, W)`, by default the labels, in their colours, `(H, W, 3)`; 255 is black."""
        return colorize(self.labels if ids is None else ids, self.label_set.palette)

    def errors(self) -> NDArray[np.uint8]:
        """Return the `error_colors` of the labels, `(H, W, 3)`; it needs a `truth`. Correct pixels are black."""
        assert self.truth is not None
        return error_colors(self.labels, self.truth, self.label_set)

    def of(self, kind: str) -> list[str]:
        """Return the paths of all parts of a kind, in the order in which they ran."""
        return [path for path, part in self.parts.items() if part.kind == kind]

    def has(self, part: str, *names: str) -> bool:
        """Return whether a part recorded tensors of all these names."""
        return all(f"{part}.{name}" in self.taps for name in names)

    def tap(self, part: str, name: str) -> Tensor:
        """Return a recorded tensor of a part, without the batch dimension."""
        return self.taps[f"{part}.{name}"]


def inspect_image(
    model: AnyModel,
    image: Source,
    truth: NDArray[np.uint8] | str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    **data: Any,
) -> Inspection:
    """Run a model once on an image and keep its intermediate values.

    Images of more than `MOST_PIXELS` pixels are reduced by averaging; their truth is reduced by nearest neighbour.

    Args:
        model: model to inspect; it is moved to `device` and stays in eval mode.
        image: a file's path, a PIL image, or an array (see `crispseg.inference.image_files.Source`).
        truth: class ids of the image, `(H, W)`, 255 for ignored pixels; or a mask file, which is read like the
            model's training masks.
        device: device; the default is CUDA if available, else the CPU.
        **data: data settings that define the meaning of mask values, such as `palette` and `ignore`.

    Raises:
        CrispsegError: the image or mask is unreadable; the truth has another size or unknown ids; weights or computed
            values are not finite; the device does not exist.
    """
    info = model.info
    array, path = read_source(image, info.in_chans, info.value_range)
    original = array.shape[0], array.shape[1]
    if truth is not None:
        truth = _reduced(_checked_truth(truth, info, original, data), cv2.INTER_NEAREST_EXACT)
    elif data:
        raise CrispsegError("applies to a mask; give the mask as truth", f"data.{min(data)}")
    array = _reduced(array, cv2.INTER_AREA)
    height, width = array.shape[:2]
    check_finite(model)
    target = usable_device(device)
    model = model.to(target).eval()
    batch = model.padded(as_batch(array, info, target))
    with torch.inference_mode(), record(model) as seen:
        outputs = model.outputs(batch)
    if wrong := [key for key, value in {**seen, "logits": outputs.logits}.items() if not value.isfinite().all()]:
        raise CrispsegError(f"{info.name} computes a {wrong[0]} that is not finite; use an earlier checkpoint")
    crop = (..., slice(height), slice(width))
    logits = outputs.logits[0][crop]
    unrefined, boundary = outputs.unrefined, outputs.boundary
    return Inspection(
        name=path.stem if path else "image",
        info=info,
        original_size=original,
        input_size=(batch.shape[-2], batch.shape[-1]),
        align_corners=model.align_corners,
        image=as_picture(array),
        probabilities=logits.float().div(model.info.temperature).softmax(0).cpu().numpy(),
        labels=_ids(logits),
        truth=truth,
        unrefined=None if unrefined is None else _ids(unrefined[0][crop]),
        boundary=None if boundary is None else boundary[0, 0][crop].float().sigmoid().cpu().numpy(),
        taps={key: value[0].float().cpu() for key, value in seen.items()},
        parts=_parts(seen, getattr(model.decoder, "fuse_levels", ())),
    )


def _reduced(values: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    """Return values `(H, W)` or `(H, W, C)`, reduced to at most about `MOST_PIXELS` pixels."""
    factor = math.sqrt(MOST_PIXELS / (values.shape[0] * values.shape[1]))
    if factor >= 1:
        return values
    height, width = (max(round(side * factor), 1) for side in values.shape[:2])
    return np.asarray(cv2.resize(values, (width, height), interpolation=interpolation), np.uint8)


def _checked_truth(
    truth: NDArray[np.uint8] | str | Path, info: ModelInfo, size: tuple[int, int], data: Mapping[str, Any]
) -> NDArray[np.uint8]:
    """Return class ids or read a mask, after checking them against the image's `size` (height, width) and classes."""
    name, ids, classes = "the ground truth", truth, info.num_classes
    if not isinstance(ids, np.ndarray):
        name, path = str(truth), Path(ids)
        with faults(path):
            path.open("rb").close()  # gives more precise errors
        ids = read_truth(info, path, data)
    if ids.shape != size:
        shown, wanted = ("×".join(map(str, shape)) for shape in (ids.shape, size))
        raise CrispsegError(f"{name} is {shown}, but the image is {wanted}; give the mask of this image")
    if (wrong := np.unique(ids[(ids >= classes) & (ids != IGNORE)])).size:
        values = f"{name} has {few(wrong)}, but the classes are 0 to {classes - 1}"
        raise CrispsegError(f"{values}; correct the mask, or replace these values by {IGNORE} to ignore them")
    return ids.astype(np.uint8)


def _ids(scores: Tensor) -> NDArray[np.uint8]:
    """Return the index of the largest score `(H, W)`; max is several times faster than argmax on a CPU."""
    return scores.max(0).indices.to("cpu", torch.uint8).numpy()


def _parts(taps: Iterable[str], levels: Sequence[int]) -> dict[str, Part]:
    """Return the parts that own recorded quantities, by path, in the order of their taps; see `_title` for levels."""
    parts = {}
    for tap in taps:
        for kind, mark in KINDS.items():
            if f".{tap}".endswith(f".{mark}"):
                path = tap.removesuffix(mark).rstrip(".")
                parts[path] = Part(kind, _title(path, levels))
    return parts


def _title(path: str, levels: Sequence[int]) -> str:
    """Return a title such as "F5 → F4", "F4 → F3, block 2" or "decoder layer 2, cross-attention".

    `levels` are the coarse levels of the decoder's fuse steps, the finest step first.
    """
    if levels and (step := re.search(r"\bfuses\.(\d+)(?:\.blocks\.(\d+))?", path)):
        coarse, block = levels[int(step[1])], f", block {int(step[2]) + 1}" if step[2] else ""
        return f"F{coarse} → F{coarse - 1}{block}"
    if levels and (merged := re.search(r"\bmerge\.fams\.(\d+)$", path)):
        return f"F{levels[int(merged[1])]} → F{levels[0] - 1}, merge"
    if layer := re.search(r"\b(encoder|decoder)\.(\d+)\.(\w+)$", path):
        return f"{layer[1]} layer {int(layer[2]) + 1}, {layer[3].replace('_', '-')}"
    return "F5 → F2" if path.endswith("decoder.fuse") else path
