"""Segmentation of images by a trained model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from copy import copy, deepcopy
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crispseg.config.settings import checks_arguments
from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.acceleration import compiled, fold_batch_norms
from crispseg.inference.device import FloatPrecision, check_process, in_parallel, usable_device
from crispseg.inference.image_files import Source, is_several, named_images, read_source, unread_images
from crispseg.inference.protocols import WHOLE, Protocol, named_protocol, unrefined_logits
from crispseg.inference.runtime import AnyModel, Backend, ExportedModel, open_model
from crispseg.inference.segmentation import Segmentation
from crispseg.inference.tiling import LARGE, Tile, Tiling, enough_memory, tiled
from crispseg.io.arrays import Normalize
from crispseg.io.images import as_picture, image_channels
from crispseg.io.parallel import tried
from crispseg.io.value_range import ValueRange, check_range
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.info import MIN_SIDE
from crispseg.models.refinement import shift
from crispseg.models.saving import absolute_source
from crispseg.nn import ceil_div

WORKERS = 2  # number of images that are read, and of small images that a CPU processes, at a time


class Segmenter:
    """Segmenter of images of any size.

    Args:
        model_or_path: folder of a saved model, of a finished run or of folds (their probabilities are averaged), hub
            id, name of a bundled model, such as "nuclei", or file of `crispseg export`. A model is copied, so that
            later changes to it have no effect.
        device: by default CUDA if available, else the CPU; exported files run on the CPU only.
        precision: fp32, or bf16, which is about twice as fast if the processor supports it, with errors of a few
            percent of the largest logit.
        protocol: scales, windows and flips, or a name of `PROTOCOLS`; by default the whole image once. With others, a
            `Segmentation` keeps logits at image size, with 4 bytes per class and pixel.
        value_range: values of 16-bit images that become black and white, or "image" to measure them in each image; by
            default those of the model.
        tile: side of the tiles in which larger images are processed; they overlap by an eighth and are blended. By
            default only images too large for memory are processed in tiles, with a warning.
        backend: runtime of an exported file; by default ONNX Runtime for .onnx and OpenVINO for .xml. With
            onnxruntime or openvino, a saved model is exported once, in this precision, to a cached file.
        compile: use `torch.compile`, for images of any size; the first image takes about a minute. On a CPU, files of
            `crispseg export` are faster (docs/results.md).

    Raises:
        CrispsegError: the model, device, protocol or value range is invalid; weights are not finite; there are more
            than 16 channels; tiles are too small; or an exported file is damaged, does not support an option, or has
            no installed runtime.

    Example:
        >>> segmenter = crispseg.Segmenter("runs/streets")  # doctest: +SKIP
        >>> segmenter("street.jpg").save("out")  # doctest: +SKIP
    """

    @checks_arguments
    def __init__(
        self,
        model_or_path: AnyModel | str | PathLike[str],
        device: str | torch.device | None = None,
        *,
        precision: FloatPrecision = "fp32",
        protocol: Protocol | str = "whole",
        value_range: ValueRange | None = None,
        tile: Tile | None = None,
        backend: Backend = "auto",
        compile: bool = False,
    ) -> None:
        check_process()
        check_range(value_range, "value_range")
        model = opened(model_or_path, backend, precision)
        check_finite(model)
        self.info, self.label_set = model.info, model.info.label_set()
        self.protocol, self.value_range = named_protocol(protocol), value_range or model.info.value_range
        self.precision, self.tile, self.backend, self.compile = precision, tile, backend, compile
        self._chosen_device = device  # None on another machine may mean another one
        self.labels_only = model.labels_only
        self.device = usable_device("cpu" if isinstance(model, ExportedModel) and device is None else device)
        self._tiling = Tiling(self._see_square, self.device, 2 * (self.protocol.window or 0))
        if isinstance(model, ExportedModel):
            model.check_use(self.device, precision, self.protocol == WHOLE)
            if model.bytes_per_pixel:  # the memory of other runtimes cannot be measured
                self._tiling.bytes_per_pixel = model.bytes_per_pixel
        else:
            model = folded_model(model, self.device)
        self._source = absolute_source(model_or_path) if isinstance(model_or_path, str | PathLike) else model
        self._model: AnyModel = model
        if compile and isinstance(model, SegmentationModel):
            self._model = copy(model)  # both share their weights
            self._model.features = compiled(model.features)  # type: ignore[method-assign, assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path or the model, which another process opens with the same settings."""
        keys = ("precision", "protocol", "value_range", "tile", "backend", "compile")
        settings = {key: getattr(self, key) for key in keys}
        return partial(Segmenter, device=self._chosen_device, **settings), (self._source,)

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...]) -> list[Segmentation]: ...
    @overload
    def __call__(self, image: Source) -> Segmentation: ...
    def __call__(self, image: Any) -> Any:
        """Return the `Segmentation` of an image.

        For several images, return a list of the results of `stream`. They may be a list, a folder, a pattern such as
        `photos/*.jpg`, or a batch: an array `(N, H, W, C)` or a tensor `(N, C, H, W)`. Type hints cover only lists.

        Raises:
            CrispsegError: the image is not a `Source`, or a file cannot be read.
        """
        if is_several(image):
            return list(self.stream(image))
        return self._segment(*self.read(image))

    def stream(
        self,
        images: str | Path | Iterable[Source],
        on_error: Callable[[Source, CrispsegError], None] | None = None,
        *,
        probabilities: bool = False,
    ) -> Generator[Segmentation, None, None]:
        """Segment images one by one, while the next ones are read.

        On a CPU, two images of up to a million pixels are processed at a time, each with half the threads. Labels are
        equal to those of calls, up to rounding.

        Args:
            images: images, a single one, a folder or a pattern. Results of values in memory are named by number,
                `image_0001` and so on, and those of a folder by their path in it.
            on_error: called with the image and the error if an image cannot be read or is too large; it is left out.
            probabilities: keep the logits of each result in the device's memory. By default, results keep labels, and
                `probabilities`, `confidence` and `objects` process the image again.

        Raises:
            CrispsegError: as for calls, at the turn of the image, unless `on_error` is given.
        """
        images, names = listed(images)
        threads, max_pixels = None, 0
        if self._shares_threads():
            threads, max_pixels = ceil_div(torch.get_num_threads(), WORKERS), LARGE // WORKERS
        work = partial(self._work, max_pixels=max_pixels, keeps_logits=probabilities)
        with closing(in_parallel(map(self._read_in_turn, images), work, WORKERS, threads)) as segmented:
            for number, ((source, _), future) in enumerate(segmented, 1):
                try:
                    prepared = future.result()
                    result = prepared if isinstance(prepared, Segmentation) else self._segment(*prepared, probabilities)
                except CrispsegError as error:
                    if on_error is None:
                        raise
                    on_error(source, error)
                    continue
                result.name = names.get(result.path, result.name) if result.path else f"image_{number:04}"
                yield result

    def _shares_threads(self) -> bool:
        """Return whether two small images are processed at a time, each with half of the CPU's threads."""
        is_possible = self.device.type == "cpu" and torch.get_num_threads() > 1
        return is_possible and isinstance(self._model, SegmentationModel) and not self.compile

    def _read_in_turn(self, source: Source) -> tuple[Source, Any]:
        """Read values in memory at once, since the caller may reuse the memory; errors wait for their turn."""
        return source, None if isinstance(source, str | Path) else tried(self.read)(source)

    def _work(
        self, item: tuple[Source, Any], max_pixels: int, keeps_logits: bool
    ) -> Segmentation | tuple[NDArray[np.uint8], Path | None]:
        """Segment an image of at most `max_pixels`, or return a larger one to be segmented by all threads."""
        source, values = item
        if isinstance(values, CrispsegError):
            raise values
        image, path = values or self.read(source)
        is_small = image.shape[0] * image.shape[1] <= max_pixels
        return self._segment(image, path, keeps_logits) if is_small else (image, path)

    def read(self, source: Source) -> tuple[NDArray[np.uint8], Path | None]:
        """Return an image as an array with the model's channels, and its path if it is a file."""
        return read_source(source, self.info.in_chans, self.value_range)

    @torch.inference_mode()
    def _segment(self, image: NDArray[np.uint8], path: Path | None, keeps_logits: bool = True) -> Segmentation:
        task = f"{path or 'the image'} of {image.shape[1]}×{image.shape[0]} pixels needs"
        with enough_memory(task, "cut or shrink it, or choose smaller tiles, such as 512"):
            labels, logits, confidence = self._see_or_tile(image)
        full = None
        if logits is not None:
            full = logits.full if keeps_logits else partial(self.logits, image)
        name, temperature = path.stem if path else "image", self.info.temperature
        further = path, full, confidence, temperature, partial(self.novelty, image)
        return Segmentation(name, as_picture(image), labels, self.label_set, *further)

    @torch.inference_mode()
    def labels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class ids `(H, W)` of an array with the model's channels."""
        return self._see_or_tile(image)[0]

    @torch.inference_mode()
    def labels_and_confidences(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return also the largest probabilities `(H, W)`, which have 256 steps if the image is processed in tiles."""
        labels, logits, of_tiles = self._see_or_tile(image)
        if logits is None:
            assert of_tiles is not None
            return labels, np.asarray(of_tiles / 255, np.float32)
        return labels, logits.full().div(self.info.temperature).softmax(0).amax(0).cpu().numpy()

    def novelty(self, image: NDArray[np.uint8]) -> float | None:
        """Return how much an array with the model's channels is unlike the training images; see `Segmentation`."""
        return self._model.novelty_of(self._batch(image))

    @torch.inference_mode()
    def logits(self, image: NDArray[np.uint8]) -> Tensor:
        """Return the refined logits `(C, H, W)` float32 of an array with the model's channels, on the same device.

        They are 0 and 1 for a file of labels.
        """
        if self.labels_only:  # the blend of tiles then takes the labels of the nearer tile
            labels = torch.from_numpy(self._see(image)[0]).long()
            return F.one_hot(labels, self.info.num_classes).permute(2, 0, 1).float()
        return self._image_logits(image).full()

    def tile_of(self, image: NDArray[np.uint8]) -> int | None:
        """Return the side of the tiles of an image if they are requested or memory is short; None without tiles."""
        height, width = image.shape[:2]
        tile = self.tile or self._tiling.forced(height * width)
        return None if tile is None or max(height, width) <= tile else tile

    def _see_or_tile(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], ImageLogits | None, NDArray[np.uint8] | None]:
        """Return the results of `_see`, or labels and confidences if tiles are requested or memory is short."""
        tile = self.tile_of(image)
        if tile is None:
            return *self._see(image), None
        labels, confidence = tiled(self.logits, image, tile, self.info.temperature)
        return labels, None, None if self.labels_only else confidence

    def _see_square(self, side: int) -> object:
        """Process a black square, whose memory is measured."""
        return self._see(np.zeros((side, side, image_channels(self.info.in_chans)), np.uint8))

    def _see(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ImageLogits | None]:
        """Return labels `(H, W)`, and the logits, unless a file has only labels."""
        if not self.labels_only:
            logits = self._image_logits(image)
            return logits.labels(), logits
        height, width = image.shape[:2]
        return self._model(self._batch(image))[0, :height, :width].numpy(), None

    def _image_logits(self, image: NDArray[np.uint8]) -> ImageLogits:
        batch = self._batch(image)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            unrefined, offsets = unrefined_logits(self._model, batch, self.protocol)
        offsets = None if offsets is None else offsets.to(torch.int8)  # the result keeps them
        return ImageLogits(self._model, unrefined, offsets, (image.shape[0], image.shape[1]))

    def _batch(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an image as input of the model, in whichever process this is."""
        check_process(self.device.type)
        return as_batch(image, self.info, self.device)


class ImageLogits(NamedTuple):
    """Logits of an image, which stay on the device until they are requested.

    Attributes:
        unrefined: `(1, C, h, w)` of the image padded to `MIN_SIDE`, at the model's stride or full-size with a protocol.
        offsets: refinement of full-size logits, `(1, 2, H, W)`.
        size: height and width of the image.
    """

    model: AnyModel
    unrefined: Tensor
    offsets: Tensor | None
    size: tuple[int, int]

    @torch.inference_mode()
    def full(self) -> Tensor:
        """Return the refined logits `(C, H, W)`."""
        return self._refined(self._resized())[0]

    def labels(self) -> NDArray[np.uint8]:
        """Return the class ids `(H, W)`, and copy only them from the device."""
        best = self._resized().max(1, keepdim=True).indices  # several times faster than argmax on a CPU
        labels = self._refined(best.to(torch.uint8))  # those of shifted logits are shifted labels
        return labels[0, 0].cpu().numpy()

    def _resized(self) -> Tensor:
        return self.model.resized(self.unrefined, [max(side, MIN_SIDE) for side in self.size])

    def _refined(self, maps: Tensor) -> Tensor:
        """Shift maps of the padded image and crop them to the image."""
        shifted = maps if self.offsets is None else shift(maps, self.offsets)
        return shifted[..., : self.size[0], : self.size[1]]


def opened(source: Any, backend: Backend, precision: FloatPrecision) -> AnyModel:
    """Return the model of a source, or the source itself if it is a model."""
    if isinstance(source, str | PathLike):
        return open_model(fspath(source), backend, precision)
    if isinstance(source, SegmentationModel | ExportedModel):
        return source
    remedy = "give a model of create_model or from_pretrained, a folder, a file or a name, such as nuclei"
    raise CrispsegError(f"the model is a value of type {type(source).__name__}; {remedy}")


def folded_model(model: SegmentationModel, device: torch.device) -> SegmentationModel:
    """Copy a model to a device, in float32 and eval mode with folded batch norms; check that its outputs are finite."""
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, model.info.in_chans, 64, 64, generator=generator, dtype=torch.float32)
    example = example.to(next(model.parameters()).device)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        model = deepcopy(model).float()
    folded = fold_batch_norms(model, example, smooth_outputs)
    with torch.inference_mode():
        outputs = smooth_outputs(folded, example)
    if not all(output.isfinite().all() for output in outputs):
        raise CrispsegError("the model's outputs are not finite, though its weights are; use an earlier checkpoint")
    moved: SegmentationModel = folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def listed(images: Any) -> tuple[Iterable[Any], Mapping[Path, str]]:
    """Return one or several images as an iterable, and the names of those of a folder or pattern.

    It warns of files in formats that cannot be read.
    """
    if isinstance(images, str | Path):
        names = named_images([images])
        if unread := unread_images([images], names):
            line = f"{len(unread)} images in {images} have a format that cannot be read, such as {unread[0]}"
            warnings.warn(f"{line}; convert them to PNG or JPEG", CrispsegWarning, stacklevel=2)
        return names, names
    is_single = not isinstance(images, Iterable) or getattr(images, "ndim", 1) in (2, 3)
    return [images] if is_single else images, {}


def as_batch(image: NDArray[np.uint8], info: ModelInfo, device: torch.device) -> Tensor:
    """Normalise an image `(H, W, C)` for a model: float32 `(1, C, H, W)`, channels last, with sides of at least 32."""
    missing = [max(0, MIN_SIDE - side) for side in image.shape[:2]]
    if any(missing):
        image = np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")
    pixels = torch.from_numpy(np.require(image, requirements=["C_CONTIGUOUS", "WRITEABLE"])).to(device)
    return Normalize(info.mean, info.std, info.in_chans).of_pixels(pixels)


def smooth_outputs(model: SegmentationModel, images: Tensor) -> list[Tensor]:
    """Return the outputs that are continuous in the weights, without logits shifted by the refinement."""
    outputs = model.outputs(images)
    smooth = outputs.unrefined, outputs.boundary, outputs.direction
    return [output for output in smooth if output is not None] or [outputs.logits]


def check_finite(model: AnyModel) -> None:
    """Raise a CrispsegError if weights or batch-norm statistics are not finite."""
    broken = [name for name, values in model.state_dict().items() if not values.isfinite().all()]
    if broken:
        raise CrispsegError(f"the model's {broken[0]} has values that are not finite; use an earlier checkpoint")
