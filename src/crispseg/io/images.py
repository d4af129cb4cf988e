"""Reading and writing of images: RGB or multi-band images, masks of raw values, and labels as palette PNGs."""

from __future__ import annotations

from collections.abc import Sequence, Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path, files_below, writable_file
from crispseg.io.opening import HEIC_SUFFIXES, opened
from crispseg.io.stages import stage
from crispseg.io.value_range import ValueRange
from crispseg.labels import color_table

MAX_CHANNELS = 16  # channels of an image

SUFFIXES = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
        *(HEIC_SUFFIXES if find_spec("pillow_heif") else ()),
    }
)
"""Suffixes of images that can be read."""

UNREAD_SUFFIXES = frozenset(
    {
        *(".arw", ".cr2", ".cr3", ".czi", ".dcm", ".dng", ".exr", ".jxl", ".lif", ".nd2", ".ndpi", ".nef", ".orf"),
        *(".pcx", ".psd", ".raf", ".rw2", ".svs", *HEIC_SUFFIXES),
    }
).difference(SUFFIXES)
"""Suffixes of images that cannot be read, so that they can be reported."""

IMAGE_FOLDERS = (  # common names of image folders, in lower case
    *("images", "image", "imgs", "img", "photos", "img_dir", "jpegimages"),
    *("rgb", "raw", "photo", "pictures", "inputs", "input", "frames"),
)


def image_channels(in_chans: int) -> int:
    """Return the number of image channels that a model needs: 3 for `in_chans` 1, which uses the mean of RGB.

    Numbers outside 1 to `MAX_CHANNELS` raise a CrispsegError.
    """
    if not 1 <= in_chans <= MAX_CHANNELS:
        raise CrispsegError(f"in_chans is {in_chans}, but images have 1 to {MAX_CHANNELS} channels; change in_chans")
    return 3 if in_chans == 1 else in_chans


def as_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the first three channels `(H, W, 3)` of an image `(H, W, C)`, or the first as grey if C is 2."""
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else image[..., :1].repeat(3, 2))


def read_image(path: str | Path, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read an image as `(H, W, channels)`, upright by its EXIF orientation.

    Args:
        path: path of the file.
        channels: 3 for RGB: alpha is dropped, grey and palette become RGB, and values are scaled to 8 bits. Other
            numbers read unchanged values of a file with this number of channels, such as RGBA or bands of a TIFF.
        value_range: value range of 16-bit images, see `to_8_bits`; or "image" to measure that of each image.

    Raises:
        CrispsegError: the file is missing, broken, not an image or larger than `MAX_PIXELS`; it has several pages or
            frames, or another number of channels; or its values are not integers of up to 16 bits.
    """
    with stage("reading"), opened(path) as raster:
        return raster.pixels(channels, value_range)


def read_mask(path: str | Path, most: int = 0xFFFF) -> NDArray[Any]:
    """Read the raw values of a mask.

    The result is `(H, W)` uint8 for grey, palette (indices) and 1-bit (0 and 1) files. It is uint16 or int32 for grey
    files of more bits, and `(H, W, 3)` uint8 for RGB files. Fully transparent pixels are 0 regardless of their colour,
    except for indices. EXIF orientation is applied.

    Raises:
        CrispsegError: as for `read_image`; also for lossy compression, and for values that are not integers from 0 to
            `most`.
    """
    with opened(path) as raster:
        return raster.labels(most)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return `(H, W)` of the upright image that can be read as RGB from its header; errors are those of `read_image`.

    The EXIF orientation of a PNG is not found if it comes after the pixels.
    """
    with opened(path) as raster:
        raster.check(3)
        return raster.size


MADE_OF = "crispseg"  # metadata key of results for `made_of`, a text that identifies image, model and settings


def write_image(
    path: str | Path, values: NDArray[np.uint8 | np.uint16], made_of: str = "", palette: bytes = b""
) -> None:
    """Write an `(H, W, 3)` RGB or `(H, W)` grey image, or indices of a palette; the suffix determines the format.

    A grey PNG may have 16 bits. PNGs have `made_of` as metadata, unless it is empty.
    """
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette(palette)
    metadata = PngImagePlugin.PngInfo()
    if made_of:
        metadata.add_text(MADE_OF, made_of)
    with atomic_path(check_picture(path)) as temporary:
        picture.save(temporary, compress_level=1, pnginfo=metadata)


def check_picture(path: str | Path) -> Path:
    """Return `path` if `write_image` can write it, otherwise raise a CrispsegError."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CrispsegError(f"cannot write {path}: unknown image suffix '{path.suffix}'; use .png or .jpg")
    return writable_file(path)


def write_labels(path: str | Path, labels: NDArray[Any], palette: Sequence[Sequence[int]], made_of: str = "") -> None:
    """Write class ids `(H, W)` as a palette PNG whose pixel values are the ids; 255 (ignore) is black.

    Ids that are neither in the palette nor 255 raise a `ValueError`.
    """
    write_image(path, _ids(labels, palette), made_of, color_table(palette).tobytes())


def colorize(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return the palette colours `(H, W, 3)` of class ids `(H, W)`; 255 (ignore) is black."""
    return color_table(palette).take(_ids(labels, palette), axis=0)


def _ids(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Check the ids against the palette and convert them to uint8."""
    ids = labels.astype(np.uint8, copy=False)
    if labels.dtype == np.uint8 and ids.max(initial=0) < len(palette):  # five times faster than the next line
        return ids
    if not (((ids < len(palette)) | (ids == 255)) & (ids == labels)).all():
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with a palette of {len(palette)} colours")
    return ids


def find_images(folder: str | Path, suffixes: Set[str] = SUFFIXES) -> list[Path]:
    """Return all images in a folder and its sub-folders by suffix, sorted; see `files_below`."""
    return sorted(path for path in files_below(Path(folder)) if path.suffix.lower() in suffixes)


def side_factor(size: Sequence[int], longer_side: int | None, shorter_side: int | None) -> float:
    """Return the factor that resizes an image of `(H, W)` to a longer or shorter side, or to fit both."""
    limits = ((longer_side, max(size)), (shorter_side, min(size)))
    return min((side / length for side, length in limits if side is not None), default=1.0)
