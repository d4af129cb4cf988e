"""Test protocols: multi-scale, flipped and sliding-window inference.

A view is one pass over the image at one scale, flipped or not. The windows of a view are blended as logits. The logits
of a view are resized to the image size, and views are averaged as probabilities or as logits. The sources of the named
protocols are in docs/recipes.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from importlib import resources
from itertools import product
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
import yaml
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from crispseg.config.settings import CHECKS, Settings, written
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.inference.runtime import AnyModel
from crispseg.io.images import side_factor
from crispseg.models import SegmentationModel
from crispseg.models.info import MIN_SIDE
from crispseg.nn import ceil_div, resize

Function: TypeAlias = Callable[[Tensor], Tensor]  # function from images `(N, C, h, w)` of any size to `(N, K, h, w)`


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Protocol(Settings):
    """Scales, flips and windows of inference. The default is the whole image once, at its original size.

    Args:
        scales: factors of the image size, after resizing to the sides below.
        longer_side, shorter_side: length to which this side of the image is resized first; with both, neither side
            becomes longer than given.
        flip: also process every scale flipped left to right.
        random_views: number of views with scales drawn uniformly from the range of `scales`, and flips if `flip`, as
            AGLN evaluates (§IV-A4); None for all `scales`.
        seed: random seed of the draws, which also depend on the image.
        window: side in pixels of square sliding windows on the resized image; None for the whole image. Windows are at
            most as large as the image.
        stride: distance of windows in pixels, by default two thirds of the window, rounded up. The last window of a row
            or column is moved back to the image's border.
        average: mean of the logits of views, or of their probabilities (softmax at image size).
    """

    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(default=(1.0,), min_length=1)
    flip: bool = False
    random_views: PositiveInt | None = None
    seed: NonNegativeInt = 0
    window: int | None = Field(default=None, ge=MIN_SIDE)
    stride: int | None = None
    average: Literal["logits", "probabilities"] = "logits"
    longer_side: PositiveInt | None = None
    shorter_side: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and not 1 <= self.stride <= (self.window or 0):
            remedy = f"give 1 to {self.window} pixels, the side of the window" if self.window else "give a window too"
            raise CrispsegError(f"stride is {self.stride}; {remedy}")

    def views_of(self, images: Tensor) -> list[tuple[float, bool]]:
        """Return the resize factor of images `(N, C, H, W)`, and whether to flip them, for each view."""
        factor = side_factor(images.shape[-2:], self.longer_side, self.shorter_side)
        flips = (False, True) if self.flip else (False,)
        if self.random_views is None:
            return [(scale * factor, flip) for scale, flip in product(self.scales, flips)]
        draw = np.random.default_rng((self.seed, zlib.crc32(images.cpu().numpy().tobytes())))
        scales = draw.uniform(min(self.scales), max(self.scales), self.random_views) * factor
        return [(float(scale), bool(draw.choice(flips))) for scale in scales]

    def __str__(self) -> str:
        given = {key: value for key, value in vars(self).items() if value != vars(WHOLE)[key]}
        return ", ".join(f"{key} {written(value)}" for key, value in given.items()) or "whole image"


WHOLE = Protocol()

_PRESETS = resources.files("crispseg.inference").joinpath("protocols.yaml").read_text(encoding="utf-8")
PROTOCOLS = {name: Protocol(**values) for name, values in yaml.safe_load(_PRESETS).items()}
"""Protocols by name; docs/recipes.md lists sources and costs."""


def named_protocol(protocol: Protocol | str) -> Protocol:
    """Return a protocol by name, or a given `Protocol`; unknown names raise a CrispsegError."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise CrispsegError(f"unknown protocol '{protocol}'{did_you_mean(str(protocol), PROTOCOLS)}")
    return PROTOCOLS[protocol]


def unrefined_logits(model: AnyModel, images: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor | None]:
    """Return float32 logits of normalised images before refinement, and the offsets `(N, 2, H, W)` to refine them.

    Images `(N, in_chans, H, W)` that are processed whole and once, with sides of at least `MIN_SIDE`, have coarse
    logits from the same forward pass as the offsets. Other protocols average logits `(N, num_classes, H, W)`.

    With `average="probabilities"` they are log-probabilities, whose softmax is the mean of the probabilities of views.
    Views are averaged before refinement, since shifted logits would not match those of other views. The offsets come
    from the whole image at native size. They are None for models without refinement.
    """
    if protocol == WHOLE and min(images.shape[-2:]) >= MIN_SIDE:
        if model.refiner is None:
            return model.logits(images).float(), None
        assert isinstance(model, SegmentationModel)
        decoded = model.features(images)
        return model.classified(decoded.feature).float(), model.refined_by(images, decoded)

    def logits_of(crops: Tensor) -> Tensor:
        return model.resized(model.logits(crops).float(), crops.shape[-2:])

    offsets = model.offsets(images)
    return average_views(partial(on_padded, logits_of), images, protocol), offsets


def on_padded(function: Function, images: Tensor) -> Tensor:
    """Call a function on images of any size, which are padded to `MIN_SIDE` by their last row and column."""
    height, width = images.shape[-2:]
    missing = max(MIN_SIDE - height, 0), max(MIN_SIDE - width, 0)
    if any(missing):
        images = F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
    return function(images)[..., :height, :width]


def average_views(logits_of: Function, images: Tensor, protocol: Protocol) -> Tensor:
    """Return the mean `(N, K, H, W)` over all views of images `(N, C, H, W)`.

    Memory contains one view and the running mean. Images are resized bilinearly, with antialiasing as in training, and
    aligned pixel centres (`align_corners=False`).
    """
    size, views = images.shape[-2:], protocol.views_of(images)
    mean: Tensor | None = None
    for scale, mirrored in views:
        sides = [max(round(side * scale), 1) for side in size]
        view = F.interpolate(images, size=sides, mode="bilinear", align_corners=False, antialias=scale < 1)
        logits = one_view(logits_of, view.flip(-1) if mirrored else view, protocol)
        logits = resize(logits.flip(-1) if mirrored else logits, size, align_corners=False)
        if protocol.average == "probabilities":
            logits = logits.softmax(1)
        # The first time not in place, because the function may keep `logits`.
        mean = logits / len(views) if mean is None else mean.add_(logits, alpha=1 / len(views))
        del logits
    assert mean is not None
    if protocol.average == "probabilities":
        mean.clamp_min_(torch.finfo(mean.dtype).tiny).log_()
    return mean


def one_view(logits_of: Function, images: Tensor, protocol: Protocol) -> Tensor:
    """Return `(N, K, h, w)` for images `(N, C, h, w)` without resizing, whole or in windows."""
    if protocol.window is None:
        return logits_of(images)
    count, _, height, width = images.shape
    rows, columns = min(protocol.window, height), min(protocol.window, width)
    stride = protocol.stride or ceil_div(2 * protocol.window, 3)
    tops, lefts = window_starts(height, rows, stride), window_starts(width, columns, stride)
    seen = torch.zeros(height, width, device=images.device)
    total: Tensor | None = None
    for top, left in product(tops, lefts):
        place = slice(top, top + rows), slice(left, left + columns)
        piece = logits_of(images[:, :, *place])
        total = piece.new_zeros(count, piece.shape[1], height, width) if total is None else total
        total[:, :, *place] += piece
        seen[place] += 1
    assert total is not None
    return total.div_(seen)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the start of each window along a side; the last window ends at the end of the side.

    >>> window_starts(10, 4, 3)
    [0, 3, 6]
    >>> window_starts(11, 4, 3)
    [0, 3, 6, 7]
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]
