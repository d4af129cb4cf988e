"""From a sample to what a model takes: augmentation while training, and normalisation always."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from crispseg.config.settings import CHECKS, Settings
from crispseg.data.dataset import Sample
from crispseg.errors import CrispsegError
from crispseg.io.arrays import Normalize
from crispseg.io.images import side_factor
from crispseg.labels import IGNORE


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Augment(Settings):
    """Random changes to the training images. A value that cannot be is a `CrispsegError`.

    Args:
        crop: height and width of the part that is cut out, or one number for a square, filled up where the image is
            smaller. None takes whole images, which fit into one batch only if all have the same size and scale is
            [1, 1]; auto is a square of the images' median shorter side, at most 192.
        scale: range of the factor by which an image is resized before it is cropped.
        flip: probability of a left-right flip.
        turn: turn crops by 0, 90, 180 or 270 degrees, each as often, and by 0 or 180 those that are not square; auto
            does so where the classes keep to no half of the images, as under a microscope or from the air.
        photometric: change brightness, contrast, saturation and hue of images without a fourth channel; mmseg does it
            more strongly, as MMSegmentation; auto is mmseg with fewer than 100 images, and else false.
        longer_side: length to which an image's longer side is brought first, so that scale is relative to that; by
            default images keep their size.
        shorter_side: the same of the shorter side; with both, no side becomes longer than it says.
        max_share: largest share of a crop's labelled pixels that one class may have, such as 0.75; where it has more,
            another place is drawn, up to ten times. 1 takes every crop.
        repeat: how often an epoch takes each image, each time another crop; auto takes large ones several times, and
            all where they are fewer than two batches.
    """

    prefix: ClassVar[str] = "augment."
    crop: PositiveInt | tuple[PositiveInt, PositiveInt] | Literal["auto"] | None = "auto"
    scale: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)
    flip: float = Field(default=0.5, ge=0, le=1)
    turn: bool | Literal["auto"] = "auto"
    photometric: bool | Literal["auto", "mmseg"] = "auto"
    longer_side: int | None = Field(default=None, ge=1)
    shorter_side: int | None = Field(default=None, ge=1)
    max_share: float = Field(default=1.0, gt=0, le=1)
    repeat: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.max_share < 1 and self.crop is None:
            raise CrispsegError(f"augment.max_share is {self.max_share}, but nothing is cropped; set augment.crop")
        if self.scale[0] > self.scale[1]:
            raise CrispsegError(f"augment.scale is {list(self.scale)}; give the smaller factor first")

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of the crop.

        Raises:
            CrispsegError: it is auto, which is decided only when a training has read its data.
        """
        if self.crop == "auto":
            raise CrispsegError("augment.crop is auto; give a size outside a training")
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


class RandomTurn(v2.Transform):  # type: ignore[misc]
    """Turn by a number of quarters drawn from `quarters`, each as often. No pixel changes its value."""

    def __init__(self, quarters: Sequence[int]) -> None:
        super().__init__()
        self.quarters = quarters

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"k": self.quarters[int(torch.randint(len(self.quarters), ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(inpt.as_subclass(Tensor).rot90(params["k"], (-2, -1)), like=inpt)


class PhotometricDistortion(v2.Transform):  # type: ignore[misc]
    """MMSegmentation's photometric distortion of RGB images, each part of which half of the images get.

    Brightness adds up to ±32 of 255, contrast multiplies by 0.5 to 1.5, saturation multiplies that of HSV by 0.5 to
    1.5, hue turns by up to ±18 of 180 degrees of a half circle, a tenth of the whole one. Contrast is second or last,
    each as often. Values are whole numbers from 0 to 255 after each part.
    """

    _transformed_types = (tv_tensors.Image,)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-0.1, 0.1)}
        drawn = {name: torch.empty(1).uniform_(*limits).item() for name, limits in ranges.items()}
        has = dict(zip(ranges, (torch.rand(len(ranges)) < 0.5).tolist(), strict=True))
        contrast_last = bool(torch.rand(1) < 0.5)
        order = ("brightness", *(() if contrast_last else ("contrast",)), "saturation", "hue", "contrast")
        return {name: drawn[name] for name in dict.fromkeys(order) if has[name]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        image = inpt.as_subclass(Tensor)  # (3, H, W), uint8
        for name, value in params.items():
            if name == "brightness":
                image = (image.float() + value).clamp(0, 255).to(torch.uint8)
            elif name == "contrast":
                image = F.adjust_brightness(image, value)  # which multiplies; adjust_contrast blends with the mean
            elif name == "saturation":
                image = saturated(image, value)
            else:
                image = F.adjust_hue(image, value)
        return tv_tensors.wrap(image, like=inpt)


def saturated(image: Tensor, factor: float) -> Tensor:
    """An RGB image `(3, H, W)` uint8 with the saturation of HSV times `factor`, at most 1; hue and value stay."""
    rgb = image.float()
    value, least = rgb.amax(0), rgb.amin(0)
    most = value / (value - least).clamp(min=1)  # at which the saturation is 1
    return (value - (value - rgb) * most.clamp(max=factor)).round().to(torch.uint8)


class Window(NamedTuple):
    """A part of an image, and what becomes of it."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    """`(H, W)` to which it is resized."""


@dataclass(frozen=True)
class RandomScaledCrop:
    """Resize by a random factor and cut out a random window of `size`, of which only the window is ever resized.

    The output is smaller than `size` where the resized image is. Without `size` there is no cut. The factor is drawn
    uniformly from `scale`, and is relative to an image of this `longer_side` and `shorter_side`, if given. Windows of
    which one class has more than `max_share` are moved.
    """

    size: tuple[int, int] | None
    scale: tuple[float, float]
    longer_side: int | None = None
    shorter_side: int | None = None
    max_share: float = 1.0

    def draw(self, source: tuple[int, int]) -> Window:
        """The window in an image of `(H, W)` that becomes the output."""
        factor = torch.empty(1).uniform_(*self.scale).item()
        factor *= side_factor(source, self.longer_side, self.shorter_side)
        scaled = [max(round(length * factor), 1) for length in source]
        output = [min(pair) for pair in zip(scaled, self.size or scaled, strict=True)]
        # Rounding the window bends the factor by less than a pixel.
        window = [
            length if out == whole else min(max(round(out / factor), 1), length)
            for length, whole, out in zip(source, scaled, output, strict=True)
        ]
        return self.moved(Window(0, 0, window[0], window[1], (output[0], output[1])), source)

    def moved(self, window: Window, source: tuple[int, int]) -> Window:
        """The window at another random place in an image of `(H, W)`."""
        room = zip(source, window[2:4], strict=True)
        top, left = (int(torch.randint(length - part + 1, ())) for length, part in room)
        return window._replace(top=top, left=left)

    def cut(self, sample: Sample) -> tuple[Window, Sample]:
        """A window and what is in it, moved up to `REDRAWS` times where one class has too much of it."""
        window = self.draw(sample.size)
        part = sample.window(*window[:4])
        for _ in range(REDRAWS if self.max_share < 1 else 0):
            if largest_share(part.labels) <= self.max_share:
                break
            window = self.moved(window, sample.size)
            part = sample.window(*window[:4])
        return window, part


REDRAWS = 10
"""As in MMSegmentation."""


def largest_share(labels: NDArray[np.uint8]) -> float:
    """Share of the labelled pixels that belong to the most frequent class; 1 where none is labelled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


def resized(image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image `(C, h, w)` and its labels `(h, w)` at another size `(H, W)`, their pixels where they were."""
    image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    # NEAREST_EXACT has the pixel centres of BILINEAR. As a Mask it would be resized with NEAREST, half a pixel off.
    labels = F.resize(labels.unsqueeze(0), list(size), InterpolationMode.NEAREST_EXACT).squeeze(0)
    return image, labels


Targets = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Labels `(H, W)` → what else is to be learned about each pixel, `(H, W)`."""


CustomTransform: TypeAlias = Callable[..., Mapping[str, Any]]
"""Called with `image=` `(H, W, C)` and `mask=` `(H, W)`, uint8; returns a mapping of both, as albumentations does."""


class SampleTransform:
    """Steps on an image and its mask, from a `Sample` to `(image, labels)`: `(C, H, W)` float32 and `(H, W)` int64.

    With `crop` they act on a window, and only that is read. With `targets`, a third tensor `(H, W)` uint8 is made from
    the labels after the steps. A `custom` transform comes before all of them.
    """

    def __init__(
        self,
        *steps: v2.Transform,
        crop: RandomScaledCrop | None = None,
        targets: Targets | None = None,
        custom: CustomTransform | None = None,
    ) -> None:
        self.steps = v2.Compose(steps)
        self.crop = crop
        self.targets = targets
        self.custom = custom

    def __call__(self, sample: Sample) -> tuple[Tensor, ...]:
        if self.custom:
            sample = transformed(sample, self.custom)
        whole = Window(0, 0, *sample.size, sample.size)
        window, (pixels, mask, _) = self.crop.cut(sample) if self.crop else (whole, sample.window(*whole[:4]))
        image, labels = torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(mask)  # (C, H, W), (H, W)
        if self.crop:
            image, labels = resized(image, labels, window.size)
        image, labels = self.steps(tv_tensors.Image(image), tv_tensors.Mask(labels))
        labels = labels.as_subclass(Tensor)
        more = [torch.from_numpy(self.targets(labels.contiguous().numpy()))] if self.targets else []
        return image.contiguous(), labels.long(), *more


def transformed(sample: Sample, custom: CustomTransform) -> Sample:
    """Return what a custom transform makes of a sample.

    Raises:
        CrispsegError: it returns no uint8 arrays `(H, W, C)` and `(H, W)`.
    """
    found = custom(image=sample.image, mask=sample.labels)
    image, labels = found["image"], found["mask"]
    for name, array in (("image", image), ("mask", labels)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            kind = getattr(array, "dtype", type(array).__name__)
            raise CrispsegError(f"transform returns {name} as {kind}; return uint8 arrays, without normalisation")
    if labels.shape != image.shape[:2] or image.shape[2:] != sample.image.shape[2:]:
        shapes = f"image {image.shape} and mask {labels.shape}"
        raise CrispsegError(
            f"transform returns {shapes}; both need the same height and width, and the image its channels"
        )
    return Sample(image, labels, sample.name)


def train_transform(
    augment: Augment,
    mean: Sequence[float],
    std: Sequence[float],
    in_chans: int = 3,
    targets: Targets | None = None,
    custom: CustomTransform | None = None,
) -> SampleTransform:
    """Augment and normalise. All randomness comes from torch's global generator; for the rest see `SampleTransform`.

    Images are normalised before they are filled up, so the fill is exactly the mean colour.

    Raises:
        CrispsegError: something is auto, which is decided only when a training has read its data.
    """
    for key in ("turn", "photometric"):
        if getattr(augment, key) == "auto":
            raise CrispsegError(f"augment.{key} is auto; give true or false outside a training")
    sides = augment.longer_side, augment.shorter_side
    crop = RandomScaledCrop(augment.window, augment.scale, *sides, augment.max_share)
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(augment.flip)]
    if augment.turn:
        square = augment.window is not None and augment.window[0] == augment.window[1]
        steps.append(RandomTurn(range(4) if square else (0, 2)))
    if augment.photometric == "mmseg":
        steps.append(PhotometricDistortion())
    elif augment.photometric:
        steps.append(v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05))
    steps.append(Normalize(mean, std, in_chans))
    if augment.window is not None:
        fill = {tv_tensors.Mask: IGNORE, "others": 0}  # a normalised image is a plain tensor
        steps.append(v2.RandomCrop(augment.window, pad_if_needed=True, fill=fill))  # only pads: nothing is larger
    return SampleTransform(*steps, crop=crop, targets=targets, custom=custom)


def eval_transform(mean: Sequence[float], std: Sequence[float], in_chans: int = 3) -> SampleTransform:
    """Normalise, at the native size."""
    return SampleTransform(Normalize(mean, std, in_chans))
