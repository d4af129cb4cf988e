"""Images named by files, folders, patterns and lists, or given as values; and the files that are written for them."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from os.path import realpath
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from crispseg.errors import CrispsegError, one_line
from crispseg.io.arrays import FORMS, image_array
from crispseg.io.files import IMAGE_FOLDERS, writable_folder
from crispseg.io.images import as_rgb, find_images, image_channels, read_image, rgb_values
from crispseg.io.opening import UnknownRange
from crispseg.io.value_range import ValueRange, to_8_bits


def named_images(sources: Sequence[str | Path]) -> dict[Path, str]:
    """Return image files, each with the name of its results: its own, or the path in its folder, without the suffix.

    A text file lists paths, one a line, relative to its folder; they are not checked. Results are named by the line, or
    by the file's name if the path is absolute or leads out of the folder.

    Raises:
        CrispsegError: a source is missing, or holds no image.
    """
    names: dict[Path, str] = {}
    for source in map(str, sources):
        path = Path(source)
        if path.is_dir():
            found = {image: image.relative_to(path) for image in find_images(path)}
        elif path.suffix.lower() == ".txt" and path.is_file():
            found = _listed(path)
        elif path.exists():
            found = {path: Path(path.name)}
        else:
            matches = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207 (a pattern may be absolute)
            found = {image: Path(image.name) for image in matches if image.is_file()}
            if not found and not glob.has_magic(source):
                raise CrispsegError(f"{source} does not exist; give an image, a folder or a pattern")
        if not found:
            raise CrispsegError(f"{source} holds no images; give an image, a folder or a pattern")
        for image, name in found.items():
            names.setdefault(image, str(name.with_suffix("")))
    return names


def _listed(path: Path) -> dict[Path, Path]:
    """Return the files that a text file lists, each with the path that names its results."""
    try:
        lines = [Path(line.strip()) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise CrispsegError(f"{path} is no text in UTF-8; give a list of paths, one a line") from None
    if no_file := next((line for line in lines if not line.name), None):
        raise CrispsegError(f"{path} has the line '{no_file}', which is no file; give one path a line")
    return {path.parent / line: Path(line.name) if line.anchor or ".." in line.parts else line for line in lines}


def unused_folder(sources: Sequence[str | Path], images: Iterable[Path]) -> Path:
    """Return the default output folder: photos_predictions for photos, next to it a_predictions for photos/a.jpg.

    For images/val it is next to images, so that results are not taken for images to train on; for an image in the
    working folder it is in there. If the folder is not empty, photos_predictions_2 follows.

    Raises:
        CrispsegError: the images are not of one folder.
    """
    folders = {image.parent for image in images}
    start = Path(sources[0])
    if len(sources) > 1 or not start.exists():
        start = folders.pop()
    elif start.is_file():
        start, folders = _beside_its_folder(start.with_suffix("")), set()
    else:
        folders = set()
    if start.name in ("", ".."):
        start = start.resolve()
    for folder in start.parents:
        if folder.name.lower() in IMAGE_FOLDERS and folder.resolve() != Path.cwd():
            start = folder.with_name(start.name)  # in there, results would be taken for images to train on
    if folders or not start.name:
        raise CrispsegError("the images are not of one folder; give out, the folder to write to")
    numbered = (start.with_name(f"{start.name}_predictions_{number}") for number in itertools.count(2))
    candidates = itertools.chain([start.with_name(f"{start.name}_predictions")], numbered)
    return next(one for one in candidates if not one.exists() or (one.is_dir() and not any(one.iterdir())))


def _beside_its_folder(path: Path) -> Path:
    """A path of the same name beside the folder that it is in; itself where that is the working folder or the root."""
    folder = path.parent.resolve()
    if folder == Path.cwd() or not folder.name:
        return path
    return (folder if path.parent.name in ("", "..") else path.parent).with_name(path.name)


def check_outputs(out: Path, files: Mapping[Path, Sequence[str | Path]], beside: bool = True) -> None:
    """Check that every image has its own files in a writable folder, and that none replaces an image.

    Args:
        out: the folder.
        files: names of the files of each image.
        beside: whether results may be in the folder of the images.

    Raises:
        CrispsegError: two images would write one file, a file would replace an image or be next to it, or the folder
            cannot be written.
    """
    # Folders are few, and each is resolved once: a million paths, one by one, would take minutes.
    real = cache(lambda path: Path(realpath(path)))  # unlike `Path.resolve` it follows loops of links too
    place_in_out = cache(lambda folder: Path(realpath(out / folder)))
    images = {real(image) if image.is_symlink() else real(image.parent) / image.name for image in files}
    places = {image.parent for image in images}
    written: dict[str, Path] = {}
    for image, names in files.items():
        for name in map(str, names):
            if name in written:
                both = f"{written[name]} and {image}"
                raise CrispsegError(f"{both} would both write {out / name}; segment them one by one")
            folder, _, file = name.rpartition(os.sep)
            place = place_in_out(folder)
            if place in places and place / file in images:
                raise CrispsegError(f"out {out} would replace the image {out / name}; choose another folder")
            if not beside and place == real(image.parent):
                raise CrispsegError(f"out {out} would mix results with the image {image}; choose another folder")
            written[name] = image
    writable_folder(out)


Source: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor
"""An image: a file's path, a PIL image, or values in memory as `image_array` takes them, such as `(H, W, 3)` RGB.

All are treated like files: turned upright (EXIF), grey becomes RGB, a fourth channel is dropped, 16 bits are scaled to
8. For models of C channels, other than 1 and 3, an array is `(H, W, C)`, a file as for `read_image`, and for 4 a PIL
image RGBA.
"""


def read_source(
    source: Source, in_chans: int, value_range: ValueRange | None = None
) -> tuple[NDArray[np.uint8], Path | None]:
    """`(H, W, 3)`, or `(H, W, C)` of a source, as the model needs it, and, if it is a file, its path.

    Values of 16 bits are scaled from `value_range`.
    """
    channels = image_channels(in_chans)
    if isinstance(source, str | Path):
        return read_image(source, channels, value_range=value_range), Path(source)
    if isinstance(source, Image.Image) and source.width and source.height:
        return _pixels(source, channels, value_range), None
    if not isinstance(source, np.ndarray | Tensor):
        kind = type(source).__name__
        raise CrispsegError(f"cannot segment a {kind}; give a path, a PIL image, {FORMS}, or a list of them")
    values = image_array(source)
    if (1 if values.ndim == 2 else values.shape[2]) not in ((1, 3, 4) if channels == 3 else (channels,)):
        raise CrispsegError(
            f"the model takes {channels} channels, not values of shape {values.shape}; give (H, W, {channels})"
        )
    kept = values if values.ndim == 2 else values[..., :channels]
    if values.dtype == np.uint16:
        return as_rgb(to_8_bits(kept, value_range, "the array")), None
    return as_rgb(np.array(kept, order="C")), None  # a copy: the caller may reuse the array


def _pixels(picture: Image.Image, channels: int, value_range: ValueRange | None) -> NDArray[np.uint8]:
    if channels != 3 and (channels, picture.mode) not in ((4, "RGBA"), (4, "RGBX")):
        remedy = "give one of RGBA" if channels == 4 else f"give an array (H, W, {channels})"
        raise CrispsegError(f"a PIL image of mode {picture.mode} has not the model's {channels} channels; {remedy}")
    try:
        upright = ImageOps.exif_transpose(picture)
        if channels == 4:
            return np.array(upright)
        return rgb_values(upright, value_range)
    except UnknownRange:
        raise CrispsegError(f"the range of a PIL image of mode {picture.mode} is unknown; scale it to 8 bits") from None
    except Exception as error:  # a PIL image reads its file late, and on broken data raises almost anything
        raise CrispsegError(f"the PIL image {picture} cannot be read ({one_line(error)}); restore its file") from None
