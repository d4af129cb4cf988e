"""Boundary refinement of saved labels of any model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from crispseg.errors import CrispsegError
from crispseg.inference.device import usable_device
from crispseg.inference.image_files import check_outputs, named_images
from crispseg.inference.segmenter import as_batch, check_finite
from crispseg.inference.tiling import enough_memory
from crispseg.io.arrays import Normalize
from crispseg.io.images import image_channels, read_image, read_mask, write_labels
from crispseg.io.opening import opened
from crispseg.labels import IGNORE, Color, default_palette
from crispseg.models import SegmentationModel
from crispseg.models.refinement import shift


class Refiner:
    """Moves labels along boundaries by the refinement of a model, whose classes are not used.

    Its boundaries are those between the classes that it was trained on; the labels may be of other classes.

    Args:
        model_or_path: a model with `refine`, which stays as it is; or a source of a saved model, as for `Segmenter`.
        device: by default CUDA if available, else the CPU.

    Raises:
        CrispsegError: no such model, one without refinement, or weights that are not finite; no such device.
    """

    def __init__(self, model_or_path: SegmentationModel | str | Path, device: str | torch.device | None = None) -> None:
        model = model_or_path
        if not isinstance(model, SegmentationModel):
            model = SegmentationModel.from_pretrained(model)
        if model.refiner is None:
            name = f"{model.info.name} on {model.info.backbone}" if model is model_or_path else model_or_path
            raise CrispsegError(f"{name} has no refinement; train a model with refine 'boundary'")
        check_finite(model)
        self.device = usable_device(device)
        self.channels, self.value_range = image_channels(model.info.in_chans), model.info.value_range
        self._normalize = Normalize(model.info.mean, model.info.std, model.info.in_chans)
        self._model = copy.deepcopy(model).eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, image: str | Path | NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Refine the labels of an image.

        Args:
            image: a file, or an array as `read_image` gives it, `(H, W, 3)` or, for a model of 4 channels, `(H, W, 4)`.
            labels: `(H, W)`; where they are 255 (ignore) they stay, and no other pixel becomes 255.

        Returns:
            `(H, W)`, of the same values.

        Raises:
            CrispsegError: the image cannot be read, is no such array, or needs more memory than there is.
            ValueError: the labels have another size than the image.
        """
        pixels = image
        if isinstance(pixels, str | Path):
            pixels = read_image(pixels, self.channels, value_range=self.value_range)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != self.channels:
            given = f"a {pixels.dtype} array of shape {pixels.shape}"
            raise CrispsegError(f"the image is {given}; give a path or an (H, W, {self.channels}) uint8 array")
        if pixels.shape[:2] != labels.shape:
            sizes = ["{}×{}".format(*shape[:2]) for shape in (labels.shape, pixels.shape)]
            raise ValueError(f"labels of {sizes[0]} pixels (height × width), but the image has {sizes[1]}")
        height, width = labels.shape
        name = image if isinstance(image, str | Path) else "the image"
        with enough_memory(f"{name} of {width}×{height} pixels needs", "cut or shrink it"):
            offsets = self._model.offsets(as_batch(pixels, self._normalize, self.device))
        assert offsets is not None
        before = torch.from_numpy(labels).to(self.device)[None, None]  # (1, 1, H, W)
        after = shift(before, offsets[..., :height, :width])
        kept = (before == IGNORE) | (after == IGNORE)
        refined: NDArray[np.uint8] = torch.where(kept, before, after)[0, 0].cpu().numpy()
        return refined


def read_labels(path: str | Path) -> tuple[NDArray[np.uint8], tuple[Color, ...]]:
    """Class ids `(H, W)` of a PNG, and the colours of ids 0 to 254: those of its palette, else the default ones.

    Raises:
        CrispsegError: it cannot be read, or its pixels are no ids of 8 bits.
    """
    labels = read_mask(path)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise CrispsegError(f"{path} holds colours or 16-bit values, not class ids; give palette or grey PNGs")
    with opened(path) as picture:
        listed = picture.getpalette("RGB") if picture.mode == "P" else None
    own = np.array(listed or [], np.uint8).reshape(-1, 3).tolist()
    palette = [tuple(color) for color in own[:IGNORE]] + list(default_palette(IGNORE)[len(own) :])
    return labels, tuple((red, green, blue) for red, green, blue in palette)


def refine_files(
    run: str | Path,
    images: Sequence[str],
    labels: Path,
    out: Path,
    *,
    device: str | torch.device | None = None,
    console: Console | None = None,
) -> tuple[int, float]:
    """Refine the label PNGs of images, and write them under the same names to another folder.

    Args:
        run: a model with `refine`, as for `Refiner`.
        images: files, folders with their sub-folders, patterns, and text files that list paths.
        labels: folder of the label PNGs, named as `predict_files` names them.
        out: folder to write to.
        device: as for `Refiner`.
        console: where progress is shown, if it is a terminal.

    Returns:
        The number of label maps, and the share of the labels that changed.

    Raises:
        CrispsegError: an image without labels; labels of another size; results that would replace files; as `Refiner`.
    """
    names = named_images(images)
    if not labels.is_dir():
        raise CrispsegError(f"is {labels}, which is no folder; give that of the label PNGs", "labels")
    if out.resolve() == labels.resolve():
        raise CrispsegError(f"is {out}, the folder of the labels themselves; give another folder", "out")
    for image, name in names.items():
        if not (labels / f"{name}.png").is_file():
            raise CrispsegError(f"{image} has no labels: {labels / name}.png does not exist")
    check_outputs(out, {image: [f"{name}.png"] for image, name in names.items()})
    refiner = Refiner(run, device)
    console = console or Console(stderr=True)
    moved = pixels = 0
    for image, name in track(names.items(), "Refining", len(names), console=console, disable=not console.is_terminal):
        before, palette = read_labels(labels / f"{name}.png")
        try:
            refined = refiner(image, before)
        except ValueError as error:
            raise CrispsegError(f"{labels / name}.png: {error}") from None
        write_labels(out / f"{name}.png", refined, palette)
        moved += int((refined != before).sum())
        pixels += before.size
    return len(names), moved / pixels
