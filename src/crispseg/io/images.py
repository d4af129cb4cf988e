"""Reading and writing pictures: images of RGB or of bands, masks as raw values, labels as palette PNGs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path, writable_file
from crispseg.io.opening import opened, whole_numbers
from crispseg.io.value_range import ValueRange
from crispseg.labels import color_table

MOST_CHANNELS = 16

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "photos", "img_dir", "jpegimages"),
    *("rgb", "raw", "photo", "pictures", "inputs", "input", "frames"),
)
"""Usual names of folders of images, in lower case."""


def image_channels(in_chans: int) -> int:
    """Return how many channels of an image a model of 1 to `MOST_CHANNELS` needs: 3 (RGB) for 1, which sees their mean.

    Another number is a CrispsegError.
    """
    if not 1 <= in_chans <= MOST_CHANNELS:
        raise CrispsegError(f"in_chans is {in_chans}, but images have 1 to {MOST_CHANNELS} channels; choose from these")
    return 3 if in_chans == 1 else in_chans


def as_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` of an image `(H, W, C)`: its first three channels, or of two the first as grey."""
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else image[..., :1].repeat(3, 2))


def read_image(path: str | Path, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read a picture as `(H, W, channels)`, upright as its EXIF orientation asks.

    Args:
        path: path of the file.
        channels: 3 for RGB: alpha is dropped, grey and palette become RGB, more bits a channel are scaled to 8.
            Others for the values of a file that has as many channels, as they are: RGBA, or bands of a TIFF.
        value_range: of images of 16 bits a channel, see `to_8_bits`.

    Raises:
        CrispsegError: missing, not an image, broken, over `MAX_PIXELS`, of several pages or frames, of another number
            of channels, or of values that are no whole numbers of 16 bits.
    """
    with opened(path) as raster:
        return raster.pixels(channels, value_range)


def deep_values(path: str | Path, channels: int = 3) -> NDArray[np.uint16] | None:
    """Return the values `(H, W, C)` of an image of more than 8 bits a channel, else None; raise as `read_image`."""
    with opened(path) as raster:
        raster.check(channels)
        return whole_numbers(raster.kept(channels), path) if raster.bit_depth > 8 else None


def read_mask(path: str | Path, most: int = 0xFFFF, lossy: bool = False, in_color: bool = False) -> NDArray[Any]:
    """Read the raw values of a mask.

    Returns `(H, W)` uint8 for grey, palette (indices) and 1-bit (0 and 1) files, `(H, W)` uint16 for 16-bit grey ones,
    int32 where they hold more, and `(H, W, 3)` uint8 for RGB ones and, if `in_color`, palette ones. Alpha is dropped,
    EXIF orientation is applied.

    Raises:
        CrispsegError: as for `read_image`; for lossy compression without `lossy`; and for values of more than 8 bits
            that are no whole numbers from 0 to `most`.
    """
    with opened(path) as raster:
        return raster.labels(most, lossy, in_color)


def image_size(path: str | Path, channels: int = 3, whole: bool = False) -> tuple[int, int]:
    """Return `(H, W)` of the upright picture from its header; `whole` as for `opened`, all else as for `read_image`.

    An orientation that a PNG states only behind its pixels is not seen.
    """
    with opened(path, whole) as raster:
        raster.check(channels)
        return raster.size


MADE_OF = "crispseg"
"""Key, in the metadata of a result, of the text that says what it was made of, `made_of` here."""


def png_text(made_of: str) -> PngImagePlugin.PngInfo:
    """Return the metadata of a PNG that say what it was made of; none for an empty text."""
    info = PngImagePlugin.PngInfo()
    if made_of:
        info.add_text(MADE_OF, made_of)
    return info


def write_image(path: str | Path, rgb: NDArray[np.uint8 | np.uint16], made_of: str = "") -> None:
    """Write an `(H, W, 3)` RGB or `(H, W)` grey picture, the latter of 16 bits too; the suffix chooses the format."""
    with atomic_path(check_picture(path)) as temporary:
        Image.fromarray(rgb).save(temporary, compress_level=1, pnginfo=png_text(made_of))


def check_picture(path: str | Path) -> Path:
    """Return `path` if `write_image` can write there, else raise a CrispsegError."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CrispsegError(f"cannot write {path}: unknown picture suffix '{path.suffix}'; use .png or .jpg")
    return writable_file(path)


def write_labels(path: str | Path, labels: NDArray[Any], palette: Sequence[Sequence[int]], made_of: str = "") -> None:
    """Write `(H, W)` class ids as a palette PNG whose pixel values are the ids; 255 (ignore) is black.

    An id that is neither in the palette nor 255 is a `ValueError`.
    """
    picture = Image.fromarray(_ids(labels, palette))
    picture.putpalette(color_table(palette).tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=png_text(made_of))


def colorize(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return RGB `(H, W, 3)` of class ids `(H, W)` of the palette; 255 (ignore) is black."""
    return color_table(palette).take(_ids(labels, palette), axis=0)


def _ids(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Check the ids against the palette and make them uint8."""
    ids = labels.astype(np.uint8)
    if not (((ids < len(palette)) | (ids == 255)) & (ids == labels)).all():
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with a palette of {len(palette)} colours")
    return ids


def find_images(folder: str | Path) -> list[Path]:
    """Return all pictures in a folder and its sub-folders, links too, by their suffix, sorted, without hidden ones."""
    if not Path(folder).is_dir():
        what = "not a folder" if Path(folder).exists() else "missing"
        raise CrispsegError(f"{folder} is {what}; give a folder of images")
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=lambda name: (Path(place, name).is_symlink(), name))
        found += [Path(place, name) for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    return sorted(found)


def side_factor(size: Sequence[int], longer_side: int | None, shorter_side: int | None) -> float:
    """Return the factor that brings an image of `(H, W)` to a longer or a shorter side, or within both."""
    wanted = ((longer_side, max(size)), (shorter_side, min(size)))
    return min((side / length for side, length in wanted if side is not None), default=1.0)
