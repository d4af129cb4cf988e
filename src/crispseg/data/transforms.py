"""From a sample to what a model takes: augmentation while training, and normalisation always."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from crispseg.data.base import Sample
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE
from crispseg.normalize import Normalize


@dataclass(frozen=True)
class Augment:
    """Random changes to the training images.

    Args:
        crop: height and width of the part that is cut out, filled up where the image is smaller. None takes whole
            images, which fit into one batch only if all have the same size and scale is [1, 1]; auto is a square of
            the images' median shorter side, at most 256.
        scale: range of the factor by which an image is resized before it is cropped.
        flip: probability of a left-right flip.
        turn: turn images by 0, 90, 180 or 270 degrees, each as often; auto does so where the classes keep to no half of
            the images, as under a microscope or from the air.
        photometric: change brightness, contrast, saturation and hue of images without a fourth channel.
        longer_side: length to which an image's longer side is brought first, so that scale is relative to that; by
            default images keep their size.
    """

    crop: tuple[int, int] | Literal["auto"] | None = "auto"
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    turn: bool | Literal["auto"] = "auto"
    photometric: bool = False
    longer_side: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.crop, tuple) and min(self.crop) < 1:
            raise CrispsegError(f"augment.crop is {list(self.crop)}; give a height and a width of 1 or more")
        if self.longer_side is not None and self.longer_side < 1:
            raise CrispsegError(f"augment.longer_side is {self.longer_side}; give a number of pixels, such as 2048")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise CrispsegError(
                f"augment.scale is {list(self.scale)}; give two positive factors, the smaller one first"
            )
        if not 0 <= self.flip <= 1:
            raise CrispsegError(f"augment.flip is {self.flip}; give a probability from 0 to 1")


class RandomTurn(v2.Transform):  # type: ignore[misc]
    """Turn by 0, 90, 180 or 270 degrees, each as often. No pixel changes its value."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"k": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(inpt.as_subclass(Tensor).rot90(params["k"], (-2, -1)), like=inpt)


class RandomScaledCrop(v2.Transform):  # type: ignore[misc]
    """Resize by a random factor and cut out a random window of `size`, of which only the window is ever resized.

    The output is smaller than `size` where the resized image is. Without `size` there is no cut. The factor is drawn
    uniformly from `scale`, and is relative to an image of this `longer_side`, if given.
    """

    def __init__(
        self, size: tuple[int, int] | None, scale: tuple[float, float], longer_side: int | None = None
    ) -> None:
        super().__init__()
        self.size, self.scale, self.longer_side = size, scale, longer_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        source = v2.query_size(flat_inputs)
        factor = torch.empty(1).uniform_(*self.scale).item()
        if self.longer_side is not None:
            factor *= self.longer_side / max(source)
        scaled = [max(round(length * factor), 1) for length in source]
        output = [min(pair) for pair in zip(scaled, self.size or scaled, strict=True)]
        # The window in the source that becomes the output. Its rounding bends the factor by less than a pixel.
        window = [
            length if out == whole else min(max(round(out / factor), 1), length)
            for length, whole, out in zip(source, scaled, output, strict=True)
        ]
        top, left = (int(torch.randint(length - part + 1, ())) for length, part in zip(source, window, strict=True))
        return {"top": top, "left": left, "height": window[0], "width": window[1], "size": output}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return F.resized_crop(inpt, **params, interpolation=InterpolationMode.BILINEAR, antialias=True)
        # NEAREST_EXACT has the pixel centres of BILINEAR. As a Mask it would be resized with NEAREST, half a pixel off.
        plain = inpt.as_subclass(Tensor).unsqueeze(0)  # (1, H, W)
        cut = F.resized_crop(plain, **params, interpolation=InterpolationMode.NEAREST_EXACT)
        return tv_tensors.wrap(cut.squeeze(0), like=inpt)


Targets = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Labels `(H, W)` → what else is to be learned about each pixel, `(H, W)`."""


class SampleTransform:
    """Steps on an image and its mask, from a `Sample` to `(image, labels)`: `(C, H, W)` float32 and `(H, W)` int64.

    With `targets`, a third tensor `(H, W)` uint8 is made from the labels after the steps.
    """

    def __init__(self, *steps: v2.Transform, targets: Targets | None = None) -> None:
        self.steps = v2.Compose(steps)
        self.targets = targets

    def __call__(self, sample: Sample) -> tuple[Tensor, ...]:
        image = tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1))  # (C, H, W)
        image, labels = self.steps(image, tv_tensors.Mask(torch.from_numpy(sample.labels)))
        labels = labels.as_subclass(Tensor)
        more = [torch.from_numpy(self.targets(labels.contiguous().numpy()))] if self.targets else []
        return image.contiguous(), labels.long(), *more


def train_transform(
    augment: Augment,
    mean: Sequence[float],
    std: Sequence[float],
    in_chans: int = 3,
    targets: Targets | None = None,
) -> SampleTransform:
    """Augment and normalise. All randomness comes from torch's global generator; for `targets` see `SampleTransform`.

    Images are normalised before they are filled up, so the fill is exactly the mean colour.

    Raises:
        CrispsegError: something is auto, which is decided only when a training has read its data.
    """
    if isinstance(augment.crop, str) or augment.turn == "auto":
        raise CrispsegError("augment.crop or augment.turn is auto; give a size, and true or false, outside a training")
    steps = [RandomTurn()] if augment.turn else []
    steps += [RandomScaledCrop(augment.crop, augment.scale, augment.longer_side), v2.RandomHorizontalFlip(augment.flip)]
    if augment.photometric:
        steps.append(v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05))
    steps.append(Normalize(mean, std, in_chans))
    if augment.crop is not None:
        fill = {tv_tensors.Mask: IGNORE, "others": 0}  # a normalised image is a plain tensor
        steps.append(v2.RandomCrop(augment.crop, pad_if_needed=True, fill=fill))  # only pads: nothing is larger
    return SampleTransform(*steps, targets=targets)


def eval_transform(mean: Sequence[float], std: Sequence[float], in_chans: int = 3) -> SampleTransform:
    """Normalise, at the native size."""
    return SampleTransform(Normalize(mean, std, in_chans))
