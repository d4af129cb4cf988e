"""One image through a model, with everything that the model computed on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.inference.device import usable_device
from crispseg.inference.image_files import Source, read_source
from crispseg.inference.runtime import AnyModel
from crispseg.inference.segmenter import as_batch, check_finite
from crispseg.io.arrays import Normalize
from crispseg.io.images import as_picture, colorize, read_mask
from crispseg.labels import IGNORE, LabelSet
from crispseg.models.info import ModelInfo
from crispseg.nn import record
from crispseg.visualization.pictures import error_map

PIXELS = 2**20
"""Larger images are inspected as a reduced copy: the recorded values are some GB at most, of a wide dense AGLN."""
PROBABILITIES = 2**26
"""Most values, classes × pixels, of the logits: 256 MiB."""

KINDS = {"fam": "warped", "ddsm": "x_l", "dcn": "fused", "cfb": "sdm.M", "attention": "locations"}
"""Kinds of parts that can be looked into, and the tap by which each is known."""


class Part(NamedTuple):
    """A part of the model that ran: one of `KINDS`, and a title, such as "F5 → F4" for that step."""

    kind: str
    title: str


@dataclass(frozen=True, eq=False)
class Inspection:
    """An image, its labels by a model, and the values that the model computed on the way.

    Sizes are those of the inspected image, H × W, which may be a reduced copy.

    Args:
        name: stem of the image's file, or "image".
        info: of the model.
        original_size: height and width of the image before it was reduced.
        input_size: height and width of the model's input: H and W, or more with padding.
        align_corners: levels lie on the image by the centres of their corner pixels, not from edge to edge.
        seconds: time that the network took.
        image: `(H, W, 3)` RGB.
        probabilities: of each class, `(C, H, W)`.
        labels: `(H, W)` class ids.
        truth: `(H, W)` class ids, 255 for ignored pixels.
        unrefined: `(H, W)` class ids before refinement; None, as the next three, of a model without one.
        boundary: probability of each pixel to be on a boundary, `(H, W)`.
        direction: most likely direction to the inside, `(H, W)`: an index of `crispseg.models.refinement.STEPS`.
        offsets: from where each pixel takes its logits, `(2, H, W)`, x and y in pixels; 0 if nothing moves.
        taps: values of `crispseg.record`, in the order of computation: float32 on the CPU, without the batch dimension.
        parts: parts that ran, by their path in the model, in that order.
    """

    name: str
    info: ModelInfo = field(repr=False)
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    align_corners: bool
    seconds: float
    image: NDArray[np.uint8] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.uint8] = field(repr=False)
    truth: NDArray[np.uint8] | None = field(repr=False, default=None)
    unrefined: NDArray[np.uint8] | None = field(repr=False, default=None)
    boundary: NDArray[np.float32] | None = field(repr=False, default=None)
    direction: NDArray[np.uint8] | None = field(repr=False, default=None)
    offsets: NDArray[np.int8] | None = field(repr=False, default=None)
    taps: dict[str, Tensor] = field(repr=False, default_factory=dict)
    parts: dict[str, Part] = field(repr=False, default_factory=dict)

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
        return np.asarray(self.probabilities.max(axis=0))

    def entropy(self) -> NDArray[np.float32]:
        """−Σ p ln p over the classes, `(H, W)`, in nats."""
        total: NDArray[np.float32] = torch.special.entr(torch.from_numpy(self.probabilities)).sum(0).numpy()
        return total

    def colors(self, ids: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Class ids `(H, W)`, by default the labels, in their colours, `(H, W, 3)`; 255 is black."""
        return colorize(self.labels if ids is None else ids, self.label_set.palette)

    def errors(self) -> NDArray[np.uint8]:
        """The `error_map` of the labels, `(H, W, 3)`: right pixels black, as in SFNet's Fig. 6.

        Raises:
            CrispsegError: the inspection has no ground truth.
        """
        if self.truth is None:
            raise CrispsegError(f"the inspection of {self.name} has no ground truth; give inspect_image the mask")
        return error_map(self.labels, self.truth, self.label_set.palette)

    def of(self, kind: str) -> list[str]:
        """Paths of the parts of a kind, in the order in which they ran."""
        return [path for path, part in self.parts.items() if part.kind == kind]

    def has(self, part: str, *names: str) -> bool:
        """Whether a part recorded tensors of all these names."""
        return all(f"{part}.{name}" in self.taps for name in names)

    def tap(self, part: str, name: str) -> Tensor:
        """A recorded tensor of a part, without the batch dimension."""
        return self.taps[f"{part}.{name}"]


def inspect_image(
    model: AnyModel,
    image: Source,
    truth: NDArray[np.uint8] | str | Path | None = None,
    *,
    ignore: Sequence[int] = (),
    name: str | None = None,
    device: str | torch.device | None = None,
    pixels: int = PIXELS,
) -> Inspection:
    """Run a model once on an image and keep what it computes on the way.

    Args:
        model: to look into; it is put on `device` and left in eval mode.
        image: a file's path, a PIL image, or an array (see `crispseg.inference.image_files.Source`).
        truth: `(H, W)` class ids of the image, 255 for ignored pixels, or a file of these.
        ignore: further values of that file that are ignored.
        name: name of the image, by default that of its file.
        device: by default a CUDA device if there is one, else the CPU.
        pixels: larger images are reduced by averaging, and their truth to the nearest pixel, until they have no more.

    Raises:
        CrispsegError: an image or mask that cannot be read; a truth of another size or with ids that are no class;
            weights that are not finite, or computed values; no such device.
    """
    info = model.info
    array, path = read_source(image, info.in_chans, info.value_range)
    name = name or (path.stem if path else "image")
    original = array.shape[0], array.shape[1]
    if truth is not None:
        truth = _checked_truth(truth, ignore, original, info.num_classes, name)
    factor = math.sqrt(min(pixels, PROBABILITIES // info.num_classes) / math.prod(original))
    if factor < 1:
        height, width = (max(round(side * factor), 1) for side in original)
        array = np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if truth is not None:
            truth = np.asarray(cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    check_finite(model)
    target = usable_device(device)
    model = model.to(target).eval()
    batch = model.padded(as_batch(array, Normalize(info.mean, info.std, info.in_chans), target))
    start = perf_counter()
    with torch.inference_mode(), record(model) as seen:
        outputs = model.outputs(batch)
    if target.type == "cuda":
        torch.cuda.synchronize(target)
    seconds = perf_counter() - start
    if wrong := [key for key, value in {**seen, "logits": outputs.logits}.items() if not value.isfinite().all()]:
        raise CrispsegError(
            f"of {name}, {info.name} computes {wrong[0]} with values that are not finite; take an earlier checkpoint"
        )
    crop = (..., slice(array.shape[0]), slice(array.shape[1]))
    logits = outputs.logits[0][crop]
    refined: dict[str, Any] = {}
    if outputs.unrefined is not None and outputs.boundary is not None and outputs.direction is not None:
        assert model.refiner is not None
        moved = model.refiner.offsets(outputs.boundary, outputs.direction)[0].to("cpu", torch.int8).numpy()
        places = np.indices(moved.shape[1:])[::-1]  # x and y
        last = np.array(moved.shape[:0:-1])[:, None, None] - 1
        refined = {
            "unrefined": _ids(outputs.unrefined[0][crop]),
            "boundary": outputs.boundary[0, 0][crop].float().sigmoid().cpu().numpy(),
            "direction": _ids(outputs.direction[0][crop]),
            # Outside, the nearest pixel of the edge counts.
            "offsets": (np.clip(places + moved, 0, last) - places).astype(np.int8)[crop],
        }
    return Inspection(
        name=name,
        info=info,
        original_size=original,
        input_size=(batch.shape[-2], batch.shape[-1]),
        align_corners=model.align_corners,
        seconds=seconds,
        image=as_picture(array),
        probabilities=logits.float().softmax(0).cpu().numpy(),
        labels=_ids(logits),
        truth=truth,
        **refined,
        taps={key: value[0].float().cpu() for key, value in seen.items()},
        parts=_parts(seen, getattr(model.decoder, "fuse_levels", ())),
    )


def _checked_truth(
    truth: NDArray[np.uint8] | str | Path, ignore: Sequence[int], size: tuple[int, int], classes: int, name: str
) -> NDArray[np.uint8]:
    """Class ids that belong to an image of `size`, height and width."""
    if not isinstance(truth, np.ndarray):
        name, values = str(truth), read_mask(truth)
        if values.ndim != 2:
            raise CrispsegError(f"{name} is an RGB mask; save it with class ids as values, as 'crispseg predict' does")
        truth = np.where(np.isin(values, ignore), IGNORE, values)
    if truth.shape != size:
        shown = "×".join(map(str, truth.shape))
        raise CrispsegError(
            f"the ground truth of {name} is {shown}, but the image {size[0]}×{size[1]}; give the mask of this image"
        )
    if (wrong := np.unique(truth[(truth >= classes) & (truth != IGNORE)])).size:
        raise CrispsegError(
            f"the ground truth of {name} has {', '.join(map(str, wrong[:5]))}, but the classes are 0 to {classes - 1}; "
            f"correct the mask, or ignore these values by {IGNORE}"
        )
    return truth.astype(np.uint8)


def _ids(scores: Tensor) -> NDArray[np.uint8]:
    """Index of the largest of `(C, H, W)`, `(H, W)`; max is several times faster than argmax on a CPU."""
    return scores.max(0).indices.to("cpu", torch.uint8).numpy()


def _parts(taps: Iterable[str], levels: Sequence[int]) -> dict[str, Part]:
    """The parts to which recorded quantities belong, by their path, in the order of their taps.

    Titles are such as "F5 → F4", "F4 → F3, block 2", "decoder layer 2, cross-attention".

    Args:
        taps: paths, in the order in which they were recorded.
        levels: the coarse level of each fuse step of the decoder, the finest step first.
    """
    found = {}
    for tap in taps:
        for kind, mark in KINDS.items():
            if not f".{tap}".endswith(f".{mark}"):
                continue
            title = path = tap.removesuffix(mark).rstrip(".")
            if levels and (step := re.search(r"\bfuses\.(\d+)(?:\.blocks\.(\d+))?", path)):
                coarse = levels[int(step[1])]
                block = f", block {int(step[2]) + 1}" if step[2] else ""
                title = f"F{coarse} → F{coarse - 1}{block}"
            elif levels and (merged := re.search(r"\bmerge\.fams\.(\d+)$", path)):
                title = f"F{levels[int(merged[1])]} → F{levels[0] - 1}, merge"
            elif layer := re.search(r"\b(encoder|decoder)\.(\d+)\.(\w+)$", path):
                title = f"{layer[1]} layer {int(layer[2]) + 1}, {layer[3].replace('_', '-')}"
            elif path.endswith("decoder.fuse"):
                title = "F5 → F2"
            found[path] = Part(kind, title)
    return found
