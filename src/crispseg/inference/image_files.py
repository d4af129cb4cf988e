"""Input images from files, folders, patterns, lists or memory, and names of their result files."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crispseg.config.files import read_text, real_path
from crispseg.errors import CrispsegError
from crispseg.io.arrays import FORMS, image_array
from crispseg.io.files import user_path, writable_folder
from crispseg.io.images import IMAGE_FOLDERS, UNREAD_SUFFIXES, find_images, image_channels, read_image
from crispseg.io.opening import faults, from_array, from_pillow
from crispseg.io.value_range import ValueRange


def named_images(sources: Sequence[str | Path]) -> dict[Path, str]:
    """Return image files with the names of their results: the file name or path in its folder, without suffix.

    A text file lists paths, one per line, relative to its folder; they are not checked. Results are named by the line,
    or by the file name if the path is absolute or outside the folder. Sources without images raise a CrispsegError.
    """
    names: dict[Path, str] = {}
    for source in sources:
        for image, name in images_of(str(source)).items():
            names.setdefault(image, str(name.with_suffix("")))
    return names


def images_of(source: str) -> dict[Path, Path]:
    """Return the images of a file, folder, pattern or list of paths, each with the path that names its results."""
    if not source:
        raise CrispsegError("the path of the images is empty; give an image, a folder or a pattern")
    path = user_path(source)
    if path.is_dir():
        images = {image: image.relative_to(path) for image in find_images(path)}
    elif path.suffix.lower() == ".txt" and path.is_file():
        images = listed_images(path)
    elif path.exists():
        images = {path: Path(path.name)}
    elif glob.has_magic(source):
        matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 (a pattern may be absolute)
        images = {image: Path(image.name) for image in matches if image.is_file()}
    else:
        raise CrispsegError(f"{source} does not exist; give an image, a folder or a pattern")
    if not images:
        raise CrispsegError(f"{source} contains no images that can be read; give an image, a folder or a pattern")
    return images


def listed_images(table: Path) -> dict[Path, Path]:
    """Return the images that a text file lists, each with the path that names its results."""
    images = {}
    for line in map(str.strip, read_text(table, "surrogateescape").splitlines()):
        if line:
            path = user_path(line, table)
            is_inside = not path.anchor and ".." not in path.parts
            images[table.parent / path] = path if is_inside else Path(path.name)
    return images


def unread_images(sources: Sequence[str | Path], names: Mapping[Path, str]) -> list[Path]:
    """Return the image files of folders in formats that cannot be read, sorted.

    Raw photos that are also in `names` as a JPEG, for example, are not returned.
    """
    readable = {image.with_suffix("") for image in names}
    unread = set()
    for source in map(user_path, sources):
        if source.is_dir():
            unread |= {image for image in find_images(source, UNREAD_SUFFIXES) if image.with_suffix("") not in readable}
    return sorted(unread)


def is_several(source: object) -> bool:
    """Return whether a source has several images: a list, a folder, a pattern, or a batch in memory."""
    if isinstance(source, str | Path):
        path = user_path(source)
        return path.is_dir() or (glob.has_magic(str(source)) and not path.exists())
    return isinstance(source, list | tuple) or (isinstance(source, np.ndarray | Tensor) and source.ndim == 4)


def unused_folder(sources: Sequence[str | Path], images: Iterable[Path]) -> Path:
    """Return the default output folder: photos_predictions for photos, or a_predictions next to it for photos/a.jpg.

    It is never in a folder called images, because training would use the results as images. If it exists,
    photos_predictions_2 is used. Sources of several folders raise a CrispsegError.
    """
    source = user_path(sources[0])
    if len(sources) > 1 or not source.exists():
        source, *others = {image.parent for image in images}
        if others:
            raise CrispsegError("the images are in several folders; give out, the folder to write to")
    if source.name in ("", ".."):
        source = real_path(source)
    folder = source.parent.parent if source.is_file() else source.parent
    while folder.name.lower() in IMAGE_FOLDERS:
        folder = folder.parent
    candidate, number = folder / f"{source.stem}_predictions", 1
    while candidate.exists():
        number += 1
        candidate = folder / f"{source.stem}_predictions_{number}"
    return candidate


def check_outputs(out: Path, files: Mapping[Path, Sequence[Path]]) -> None:
    """Raise a CrispsegError unless `out` is writable, result files are unique, and none is next to an image."""
    written: dict[Path, Path] = {}
    for image, results in files.items():
        for result in results:
            other = written.setdefault(result, image)
            if other != image:
                raise CrispsegError(f"{other} and {image} would both write {result}; segment them one by one")
    # Each folder is resolved only once, since a million paths would take minutes.
    result_folders = {result.parent for result in written}
    image_folders = {image.parent for image in files}
    mixed = {*map(real_path, result_folders)} & {*map(real_path, image_folders)}
    if mixed:
        raise CrispsegError(f"out {out} would mix results with the images in {min(mixed)}; choose another folder")
    writable_folder(out)


Source: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor
"""An image: a file path, a PIL image, or values for `image_array`, such as `(H, W, 3)` RGB.

All are treated like files: EXIF orientation is applied, grey becomes RGB, a fourth channel is dropped, and 16 bits are
scaled to 8. For models of C channels, other than 1 and 3, an array is `(H, W, C)` and a file is as for `read_image`. A
PIL image may be RGBA for 4 channels. Pillow loads 16-bit colour with 8 bits, so give its path.
"""


def read_source(
    source: object, in_chans: int, value_range: ValueRange | None = None
) -> tuple[NDArray[np.uint8], Path | None]:
    """Return a `Source` as `(H, W, 3)` or `(H, W, C)`, as the model needs, and the path if it is a file.

    16-bit values are scaled from `value_range`.
    """
    channels = image_channels(in_chans)
    if isinstance(source, str | Path):
        return read_image(source, channels, value_range=value_range), user_path(source)
    if isinstance(source, Image.Image) and source.width and source.height:
        with faults("the PIL image"):
            return from_pillow(source, "the PIL image").pixels(channels, value_range), None
    if not isinstance(source, np.ndarray | Tensor):
        kind = type(source).__name__
        raise CrispsegError(f"cannot segment a {kind}; give a path, a PIL image, {FORMS}, or a list of them")
    return from_array(image_array(source), "the array").pixels(channels, value_range), None
