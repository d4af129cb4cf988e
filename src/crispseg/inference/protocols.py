"""Test protocols: multi-scale, flipped and sliding-window inference.

One pass over the image at one scale, flipped or not, is a view. The windows of a view are blended as logits. A view's
logits are resized to the image's size, and the views are averaged as probabilities or as logits. docs/protocols.md has
the sources of the named protocols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import product
from typing import Annotated, Literal, TypeAlias

import pydantic
import torch
import torch.nn.functional as F
import yaml
from pydantic import Field, PositiveInt
from torch import Tensor

from crispseg.config.settings import CHECKS, Settings
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.inference.runtime import AnyModel, ExportedModel
from crispseg.io.images import side_factor
from crispseg.models.info import MIN_SIDE
from crispseg.models.refinement import DIRECTIONS, shift
from crispseg.nn import resize

Average: TypeAlias = Literal["logits", "probabilities"]
Blend: TypeAlias = Literal["uniform", "linear"]

Function: TypeAlias = Callable[[Tensor], Tensor]
"""Images `(N, C, h, w)` of any size → `(N, K, h, w)`."""


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Protocol(Settings):
    """Scales, flips and windows of inference. The default is the whole image once, at its own size.

    Args:
        scales: factors of the image's size, after the sides below.
        longer_side, shorter_side: length to which this side of the image is resized first; with both, neither side
            becomes longer than given.
        flip: also process every scale flipped left to right.
        window: side in pixels of square windows that slide over the resized image; None for the whole image. A window
            is at most as large as the image.
        stride: pixels from window to window, by default two thirds of the window, rounded up. The last window of a row
            or column is moved back to the image's border.
        blend: weights of windows where they overlap: uniform, or linear from a window's border to its middle.
        average: mean of the views' logits, or of their probabilities (softmax at the image's size).
        batch: windows at once.

    Raises:
        CrispsegError: a value out of range.
    """

    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(default=(1.0,), min_length=1)
    flip: bool = False
    window: int | None = Field(default=None, ge=MIN_SIDE)
    stride: int | None = None
    blend: Blend = "uniform"
    average: Average = "logits"
    batch: PositiveInt = 4
    longer_side: PositiveInt | None = None
    shorter_side: PositiveInt | None = None

    def __post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise CrispsegError(f"scales is {list(self.scales)}; name each scale once")
        if self.stride is not None and self.window is None:
            raise CrispsegError(f"stride is {self.stride}, but without windows there is none; give a window too")
        if self.window is not None and not 1 <= self.step <= self.window:
            raise CrispsegError(f"stride is {self.stride}; give 1 to {self.window} pixels, the side of the window")

    @property
    def step(self) -> int:
        """Stride in pixels; 0 without windows."""
        return self.stride if self.stride is not None else -(-2 * (self.window or 0) // 3)

    def factors(self, size: Sequence[int]) -> list[float]:
        """Return the factor by which an image of `(H, W)` is resized, for each scale."""
        return [scale * side_factor(size, self.longer_side, self.shorter_side) for scale in self.scales]

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.scales) * (2 if self.flip else 1)

    def __str__(self) -> str:
        parts = ["whole image" if self.window is None else f"windows of {self.window} every {self.step} px"]
        if self.window is not None and self.blend != "uniform":
            parts.append(f"{self.blend} blend")
        for name, side in (("longer", self.longer_side), ("shorter", self.shorter_side)):
            if side is not None:
                parts.append(f"{name} side {side}")
        if self.scales != (1.0,):
            parts.append(f"scales {' '.join(f'{scale:g}' for scale in self.scales)}")
        if self.flip:
            parts.append("flip")
        if self.views > 1:
            parts.append(f"mean of {self.average}")
        return ", ".join(parts)


WHOLE = Protocol()

_PRESETS = resources.files("crispseg.inference").joinpath("protocols.yaml").read_text(encoding="utf-8")
PROTOCOLS = {name: Protocol(**values) for name, values in yaml.safe_load(_PRESETS).items()}
"""Protocols by name; docs/protocols.md lists sources and costs."""


def named_protocol(protocol: Protocol | str) -> Protocol:
    """Return a protocol by its name, or a `Protocol` as it is.

    Raises:
        CrispsegError: unknown name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise CrispsegError(f"unknown protocol '{protocol}'{did_you_mean(str(protocol), PROTOCOLS)}")
    return PROTOCOLS[protocol]


def predict_logits(model: AnyModel, images: Tensor, protocol: Protocol) -> Tensor:
    """Normalised images `(N, in_chans, H, W)` → logits `(N, num_classes, H, W)` float32, refined if the model refines.

    With `average="probabilities"` they are log-probabilities, whose softmax is the mean of the views' probabilities.
    """
    logits, offsets = unrefined_logits(model, images, protocol)
    logits = resize(logits, images.shape[-2:], align_corners=True)
    return logits if offsets is None else shift(logits, offsets)


def unrefined_logits(model: AnyModel, images: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor | None]:
    """Logits of normalised images before refinement, float32, and the offsets `(N, 2, H, W)` that refine them.

    Seen whole and once, images `(N, in_chans, H, W)` with sides of `MIN_SIDE` or more have coarse logits, from the same
    walk through the network as the offsets. By any other protocol logits are averaged, `(N, num_classes, H, W)`.

    Views are averaged unrefined and the average is refined once, since shifted logits would not fit those of another
    view. The offsets come from the image at its own size, not mirrored, in the protocol's windows, whose boundary and
    direction logits are blended as class logits are. They are None for a model without refinement.
    """
    refiner = model.refiner
    if protocol == WHOLE and min(images.shape[-2:]) >= MIN_SIDE:
        coarse, decoded = model.coarse(images)
        offsets = None if refiner is None else refiner.offsets(*refiner.maps(images, decoded.detail))
        return coarse.float(), offsets

    def logits_of(crops: Tensor) -> Tensor:
        return resize(model.coarse_logits(crops).float(), crops.shape[-2:], align_corners=True)

    if refiner is None:
        return average_views(_extended(logits_of), images, protocol), None
    assert not isinstance(model, ExportedModel)  # which refines inside

    def maps_of(crops: Tensor) -> Tensor:
        detail = None if refiner.branch is not None else model.detail(crops)
        return torch.cat(refiner.maps(crops, detail), 1).float()  # (N, 1 + 8, h, w)

    def both_of(crops: Tensor) -> Tensor:
        coarse, decoded = model.coarse(crops)
        logits = resize(coarse.float(), crops.shape[-2:], align_corners=True)
        return torch.cat([logits, *refiner.maps(crops, decoded.detail)], 1).float()  # (N, K + 1 + 8, h, w)

    here = 1.0 in protocol.factors(images.shape[-2:])  # then one walk gives the maps and the logits of that view
    seen = one_view(_extended(both_of if here else maps_of), images, protocol)
    own, boundary, direction = torch.split(seen, [seen.shape[1] - 1 - DIRECTIONS, 1, DIRECTIONS], 1)
    logits = average_views(_extended(logits_of), images, protocol, own if here else None)
    return logits, refiner.offsets(boundary, direction)


def average_views(logits_of: Function, images: Tensor, protocol: Protocol, own: Tensor | None = None) -> Tensor:
    """Mean over all views of images `(N, C, H, W)`, `(N, K, H, W)`; `own` is what the images as they are gave already.

    One view and the running mean are in memory, never two views. Images are resized bilinearly, smoothed where they
    shrink, as in training; pixel centres correspond (`align_corners=False`).
    """
    size = images.shape[-2:]
    mean: Tensor | None = None
    for scale in protocol.factors(size):
        scaled = _scaled(images, scale)
        for mirrored in (False, True) if protocol.flip else (False,):
            if own is not None and scale == 1 and not mirrored:
                logits = own
            else:
                logits = one_view(logits_of, scaled.flip(-1) if mirrored else scaled, protocol)
            if mirrored:
                logits = logits.flip(-1)
            logits = resize(logits, size, align_corners=False)
            if protocol.average == "probabilities":
                logits = logits.softmax(1)
            # Not in place the first time: `logits` may be a tensor of the function's own.
            mean = logits / protocol.views if mean is None else mean.add_(logits, alpha=1 / protocol.views)
            del logits
    assert mean is not None
    if protocol.average == "probabilities":
        mean.clamp_min_(torch.finfo(mean.dtype).tiny).log_()
    return mean


def one_view(logits_of: Function, images: Tensor, protocol: Protocol) -> Tensor:
    """Images `(N, C, h, w)` as they are, whole or in windows, `(N, K, h, w)`."""
    if protocol.window is None:
        return logits_of(images)
    count, _, height, width = images.shape
    rows, columns = min(protocol.window, height), min(protocol.window, width)
    tops, lefts = window_starts(height, rows, protocol.step), window_starts(width, columns, protocol.step)
    corners = list(product(tops, lefts))
    if len(corners) == 1:
        return logits_of(images)
    down, across = (_weights(length, protocol.blend, images.device) for length in (rows, columns))
    weight, seen = down[:, None] * across, torch.zeros(height, width, device=images.device)
    total: Tensor | None = None
    for first in range(0, len(corners), protocol.batch):
        group = corners[first : first + protocol.batch]
        crops = torch.cat([images[:, :, top : top + rows, left : left + columns] for top, left in group])
        pieces = torch.split(logits_of(crops) * weight, count)
        if total is None:
            total = pieces[0].new_zeros(count, pieces[0].shape[1], height, width)
        for (top, left), piece in zip(group, pieces, strict=True):
            total[:, :, top : top + rows, left : left + columns] += piece
            seen[top : top + rows, left : left + columns] += weight
    assert total is not None
    return total.div_(seen)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of the windows on a side; the last one ends with the side.

    >>> window_starts(10, 4, 3)
    [0, 3, 6]
    >>> window_starts(11, 4, 3)
    [0, 3, 6, 7]
    """
    count = max(math.ceil((length - window) / stride), 0) + 1
    return [min(index * stride, max(length - window, 0)) for index in range(count)]


def _weights(length: int, blend: Blend, device: torch.device) -> Tensor:
    """`(length,)`, all above 0."""
    if blend == "uniform":
        return torch.ones(length, device=device)
    distance = torch.arange(length, device=device) + 0.5  # from the border to the pixel's centre
    return torch.minimum(distance, length - distance) * (2 / length)


def _scaled(images: Tensor, scale: float) -> Tensor:
    size = [max(round(length * scale), 1) for length in images.shape[-2:]]
    if tuple(size) == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)


def _extended(function: Function) -> Function:
    """The function for images of any size, extended to `MIN_SIDE` by their last row and column."""

    def extended(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        missing = max(MIN_SIDE - height, 0), max(MIN_SIDE - width, 0)
        if not any(missing):
            return function(images)
        padded = F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
        return function(padded)[..., :height, :width]

    return extended
