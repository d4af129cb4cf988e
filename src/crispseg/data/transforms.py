"""Transforms from samples to model inputs: augmentation for training, and normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field
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

Side: TypeAlias = Annotated[int, Field(gt=0, le=2**16)]  # pixels
Factor: TypeAlias = Annotated[float, Field(gt=0, le=100)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Augment(Settings):
    """Random augmentation of training images. Invalid values raise a `CrispsegError`.

    Args:
        crop: height and width of the crop, or one number for a square; smaller images are padded. None uses whole
            images, which must have the same size and scale [1, 1] to form batches. auto is a square of the images'
            median shorter side, at most 192.
        scale: range of the factor by which an image is resized before cropping.
        flip: probability of a left-right flip.
        turn: rotate crops by 0, 90, 180 or 270 degrees with equal probability, or by 0 or 180 if they are not square.
            auto does so if classes have no preferred half of the image, as in microscope or aerial images.
        photometric: change brightness, contrast, saturation and hue of images without a fourth channel. mmseg uses the
            stronger changes of MMSegmentation; auto is mmseg with fewer than 100 images, otherwise false.
        longer_side: length to which the longer side is resized first, so that scale is relative to it; by default
            images keep their size.
        shorter_side: the same for the shorter side; with both, neither side becomes longer than given.
        max_share: largest share of a crop's labelled pixels that one class may have, such as 0.75; otherwise another
            position is drawn, up to ten times. 1 accepts every crop.
        repeat: number of crops of each image in an epoch; auto repeats large images, and all images if they are fewer
            than two batches.
        cutmix: side, in pixels, of square cells that the crops of a batch exchange (CutMix; French et al., BMVC 2020),
            so that a few labels are not learned by the image that they are in. By default, crops stay whole.
    """

    prefix: ClassVar[str] = "augment."
    crop: Side | tuple[Side, Side] | Literal["auto"] | None = "auto"
    scale: tuple[Factor, Factor] = (0.8, 1.25)
    flip: float = Field(default=0.5, ge=0, le=1)
    turn: bool | Literal["auto"] = "auto"
    photometric: bool | Literal["auto", "mmseg"] = "auto"
    longer_side: Side | None = None
    shorter_side: Side | None = None
    max_share: float = Field(default=1.0, gt=0, le=1)
    repeat: Annotated[int, Field(ge=1, le=10**6)] | Literal["auto"] = "auto"
    cutmix: Side | None = None

    def __post_init__(self) -> None:
        if self.max_share < 1 and self.crop is None:
            raise CrispsegError(f"augment.max_share is {self.max_share}, but nothing is cropped; set augment.crop")
        if self.scale[0] > self.scale[1]:
            raise CrispsegError(f"augment.scale is {list(self.scale)}; give the smaller factor first")

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of the crop; auto, which training resolves, raises a `CrispsegError`."""
        if self.crop == "auto":
            raise CrispsegError("augment.crop is auto, which only crispseg.train resolves; give a size")
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


class RandomTurn(v2.Transform):  # type: ignore[misc]
    """Random rotation by a number of quarter turns from `quarters`, without changes of pixel values."""

    def __init__(self, quarters: Sequence[int]) -> None:
        super().__init__()
        self.quarters = quarters

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"k": self.quarters[int(torch.randint(len(self.quarters), ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(inpt.as_subclass(Tensor).rot90(params["k"], (-2, -1)), like=inpt)


class PhotometricDistortion(v2.Transform):  # type: ignore[misc]
    """MMSegmentation's photometric distortion of RGB images; each step has probability 0.5.

    Brightness adds up to ±32 of 255. Contrast and HSV saturation are multiplied by 0.5 to 1.5. Hue shifts by up to ±18
    on a scale of 180 for the full circle. Contrast is the second or the last step, with equal probability. Values are
    integers from 0 to 255 after each step.
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
            image = DISTORTIONS[name](image, value)
        return tv_tensors.wrap(image, like=inpt)


def brightened(image: Tensor, value: float) -> Tensor:
    """Return a uint8 image with a value added to its own."""
    return (image.float() + value).clamp(0, 255).to(torch.uint8)


def saturated(image: Tensor, factor: float) -> Tensor:
    """Return a uint8 image `(3, H, W)` with the saturation of HSV multiplied by a factor, up to 1."""
    rgb = image.float()
    brightest, darkest = rgb.amax(0), rgb.amin(0)
    most = brightest / (brightest - darkest).clamp(min=1)  # factor for saturation 1
    return (brightest - (brightest - rgb) * most.clamp(max=factor)).round().to(torch.uint8)


DISTORTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": brightened,
    "contrast": F.adjust_brightness,  # multiplies; adjust_contrast blends with the mean
    "saturation": saturated,
    "hue": F.adjust_hue,
}


class TwoViews(v2.Transform):  # type: ignore[misc]
    """Normalised views of an image `(C, H, W)` as one of `(2C, H, W)`: unchanged, then with distorted colours."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        self.normalize, self.distortion = normalize, PhotometricDistortion()

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        strong = self.distortion(inpt) if len(inpt) == 3 else inpt  # other channels have no colours
        return torch.cat([self.normalize(inpt), self.normalize(strong)])


@dataclass(frozen=True)
class RandomScaledCrop:
    """Resize by a random factor and cut out a random window of `size`; only the window is resized.

    The output is smaller than `size` if the resized image is smaller. A `size` of None disables the crop. The factor is
    drawn uniformly from `scale`, relative to an image of this `longer_side` and `shorter_side`, if given. Windows are
    moved if one class has more than `max_share` of them, or if they have no labelled pixel although the image has some.
    """

    size: tuple[int, int] | None
    scale: tuple[float, float]
    longer_side: int | None = None
    shorter_side: int | None = None
    max_share: float = 1.0

    def draw(self, source: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Draw the height and width of a window of an image of `(H, W)`, and those after resizing."""
        factor = torch.empty(1).uniform_(*self.scale).item()
        factor *= side_factor(source, self.longer_side, self.shorter_side)
        scaled = [max(round(length * factor), 1) for length in source]
        output = [min(pair) for pair in zip(scaled, self.size or scaled, strict=True)]
        # Rounding of the window changes the output by less than a pixel.
        window = [
            length if out == whole else min(max(round(out / factor), 1), length)
            for length, whole, out in zip(source, scaled, output, strict=True)
        ]
        return (window[0], window[1]), (output[0], output[1])

    def cut(self, sample: Sample) -> tuple[Sample, tuple[int, int]]:
        """Return a window of a sample at a random position, and its size `(H, W)` after resizing.

        The position is redrawn up to `REDRAWS` times if one class has a too large share. A window without labelled
        pixels, which would teach nothing, is replaced by one around a labelled pixel, if there is any.
        """
        window, size = self.draw(sample.size)
        for _ in range(1 + REDRAWS):
            room = zip(sample.size, window, strict=True)
            top, left = (int(torch.randint(length - part + 1, ())) for length, part in room)
            part = sample.window(top, left, *window)
            if self.max_share == 1 or largest_share(part.labels) <= self.max_share:
                break
        if (part.labels == IGNORE).all():
            part = around_label(sample, window)
        return part, size


def around_label(sample: Sample, window: tuple[int, int]) -> Sample:
    """Return a window at a random position with a random labelled pixel; anywhere if no pixel is labelled."""
    known = np.flatnonzero(sample.labels != IGNORE)
    place = int(known[int(torch.randint(len(known), ()))]) if len(known) else 0
    corner = []
    for anchor, length, part in zip(divmod(place, sample.size[1]), sample.size, window, strict=True):
        first, last = max(anchor - part + 1, 0), min(anchor, length - part)
        corner.append(int(torch.randint(first, last + 1, ())))
    return sample.window(corner[0], corner[1], *window)


REDRAWS = 10  # maximum number of redraws, as in MMSegmentation


def largest_share(labels: NDArray[np.uint8]) -> float:
    """Return the share of the most frequent class in the labelled pixels; 1 if no pixel is labelled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


Targets = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # labels `(H, W)` → further targets `(H, W)`
CustomTransform: TypeAlias = Callable[..., Mapping[str, Any]]
"""Function of `image=` `(H, W, C)` and `mask=` `(H, W)`, uint8, that returns a mapping like albumentations."""


class SampleTransform:
    """Transform from a `Sample` to `(image, labels)`: `(C, H, W)` float32 and `(H, W)` int64.

    With `crop`, the steps process only a window. With `targets`, a third tensor `(H, W)` uint8 is made from the labels
    after the steps. A `custom` transform comes before all of them; its masks have ids below `num_classes`.
    """

    def __init__(
        self,
        *steps: v2.Transform,
        crop: RandomScaledCrop | None = None,
        targets: Targets | None = None,
        custom: CustomTransform | None = None,
        num_classes: int = IGNORE,
    ) -> None:
        self.steps = v2.Compose(steps)
        self.crop = crop
        self.targets = targets
        self.custom = custom
        self.num_classes = num_classes

    def __call__(self, sample: Sample) -> tuple[Tensor, ...]:
        if self.custom:
            sample = transformed(sample, self.custom, self.num_classes)
        part, size = self.crop.cut(sample) if self.crop else (sample, sample.size)
        image = torch.from_numpy(part.image).permute(2, 0, 1)  # (C, H, W)
        labels = torch.from_numpy(part.labels)  # (H, W)
        if self.crop:
            image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
            # NEAREST_EXACT has the pixel centres of BILINEAR; a Mask would be resized with NEAREST, half a pixel off.
            labels = F.resize(labels.unsqueeze(0), list(size), InterpolationMode.NEAREST_EXACT).squeeze(0)
        image, labels = self.steps(tv_tensors.Image(image), tv_tensors.Mask(labels))
        labels = labels.as_subclass(Tensor)
        more = [torch.from_numpy(self.targets(labels.contiguous().numpy()))] if self.targets else []
        return image.contiguous(), labels.long(), *more


def transformed(sample: Sample, custom: CustomTransform, num_classes: int) -> Sample:
    """Apply a custom transform to a sample; results other than uint8 `(H, W, C)` and ids `(H, W)` raise an error."""
    changed = custom(image=sample.image, mask=sample.labels)
    pair: list[Any] = [changed.get(key) if isinstance(changed, Mapping) else changed for key in ("image", "mask")]
    name = f"transform {getattr(custom, '__qualname__', type(custom).__name__)}"
    kinds = [(getattr(array, "dtype", type(array).__name__), getattr(array, "shape", ())) for array in pair]
    size = kinds[0][1][:2]
    if kinds != [(np.uint8, (*size, *sample.image.shape[2:])), (np.uint8, size)] or not math.prod(size):
        shown = [f"{dtype} {shape}" for dtype, shape in kinds]
        remedy = "return uint8 arrays of the same height and width, with the image's channels, without normalisation"
        raise CrispsegError(f"{name} returns image as {shown[0]} and mask as {shown[1]}; {remedy}")
    image, labels = map(np.ascontiguousarray, pair)
    unknown = labels[(labels >= num_classes) & (labels != IGNORE)]
    if unknown.size:
        raise CrispsegError(f"{name} returns a mask with {unknown[0]}; give ids below {num_classes}, or {IGNORE}")
    return Sample(image, labels, sample.name)


def train_transform(
    augment: Augment,
    mean: Sequence[float],
    std: Sequence[float],
    in_chans: int = 3,
    targets: Targets | None = None,
    custom: CustomTransform | None = None,
    two_views: bool = False,
    num_classes: int = IGNORE,
) -> SampleTransform:
    """Return a transform that augments and normalises, with randomness from torch's global generator.

    Images are normalised before padding, so the padding is exactly the mean colour. See also `SampleTransform`.
    With `two_views`, the image has those of `TwoViews` instead of `augment.photometric`. A setting that is auto is
    refused by a `CrispsegError`, because only training resolves it, when it reads its data.
    """
    for key in ("turn", "photometric"):
        if getattr(augment, key) == "auto":
            raise CrispsegError(f"augment.{key} is auto, which only crispseg.train resolves; give true or false")
    sides = augment.longer_side, augment.shorter_side
    crop = RandomScaledCrop(augment.window, augment.scale, *sides, augment.max_share)
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(augment.flip)]
    if augment.turn:
        square = augment.window is not None and augment.window[0] == augment.window[1]
        steps.append(RandomTurn(range(4) if square else (0, 2)))
    normalize = Normalize(mean, std, in_chans)
    if augment.photometric and not two_views:
        jitter = v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
        steps.append(PhotometricDistortion() if augment.photometric == "mmseg" else jitter)
    steps.append(TwoViews(normalize) if two_views else normalize)
    if augment.window is not None:
        fill = {tv_tensors.Mask: IGNORE, "others": 0}  # a normalised image is a plain tensor
        steps.append(v2.RandomCrop(augment.window, pad_if_needed=True, fill=fill))  # only pads
    return SampleTransform(*steps, crop=crop, targets=targets, custom=custom, num_classes=num_classes)


def eval_transform(mean: Sequence[float], std: Sequence[float], in_chans: int = 3) -> SampleTransform:
    """Return a transform that normalises at native size."""
    return SampleTransform(Normalize(mean, std, in_chans))
