"""PIL images as rasters: one function for each format whose files Pillow would not decode exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from crispseg.errors import CrispsegError
from crispseg.io.raster import LOSSY, Raster
from crispseg.io.tiff_reading import MAX_PIXELS, from_tiff
from crispseg.labels import Color

GREY_BITS = {"1": 1, "L": 8, "LA": 8, "I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16, "I": 32, "F": 32}
COLOR_MODES = {"RGB": "rgb", "RGBA": "rgb", "RGBX": "rgb", "P": "palette", "PA": "palette"}  # others are refused
PNG_MODES = {  # mode of Pillow's decoder of PNGs → colours, bits of a channel, and channels in the file
    "1": ("grey", 1, 1),
    "L;2": ("grey", 2, 1),
    "L;4": ("grey", 4, 1),
    "L": ("grey", 8, 1),
    "LA": ("grey", 8, 2),
    "I;16B": ("grey", 16, 1),
    "LA;16B": ("grey", 16, 2),
    "RGB": ("rgb", 8, 3),
    "RGBA": ("rgb", 8, 4),
    "RGB;16B": ("rgb", 16, 3),
    "RGBA;16B": ("rgb", 16, 4),
    "P;1": ("palette", 8, 1),
    "P;2": ("palette", 8, 1),
    "P;4": ("palette", 8, 1),
    "P": ("palette", 8, 1),
}
# Others run programs (EPS) or exceed their stated size (ICO).
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
HEIC_SUFFIXES = (".heic", ".heif")
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF")


def from_pillow(picture: Any, name: object) -> Raster:
    """Return the image of a PIL image; if not loaded, its file is decoded without it, because Pillow may lose bits."""
    if picture.width * picture.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if not getattr(picture, "tile", None):  # it is loaded, or was made in memory
        return from_loaded(picture, name)
    if picture.fp is None or picture.fp.closed:
        raise CrispsegError(f"{name} is not loaded, and its file is closed; keep the file open, or give its path")
    reader = PILLOW_READERS.get(picture.format, from_loaded)
    return reader(picture, name)


def from_loaded(picture: Any, name: object) -> Raster:
    """Return the image of a PIL image with the values that Pillow decodes."""
    bits = GREY_BITS.get(picture.mode, 8)
    color = "grey" if picture.mode in GREY_BITS else COLOR_MODES.get(picture.mode, picture.mode)
    levels = picture.getpalette("RGB") or []  # none of other colours

    def load(top: int, bottom: int) -> NDArray[Any]:
        values = np.asarray(picture)
        if getattr(picture, "_ended", False):  # Pillow ends a JPEG itself if the program has LOAD_TRUNCATED_IMAGES
            raise OSError("image file is truncated")
        values = values.astype(np.uint8) if picture.mode == "1" else values
        return values.reshape(picture.height, picture.width, -1)[top:bottom]

    return Raster(
        name,
        picture.size[::-1],
        len(picture.getbands()),
        2**bits - 1,
        color,
        load,
        orientation=lambda: orientation_of(picture),
        palette=colors_of(levels),
        clear=clear_indices(picture),
        lossy=f"{name} has the format {picture.format}{LOSSY}" if picture.format in LOSSY_FORMATS else "",
    )


def orientation_of(picture: Any) -> int:
    """Return the EXIF orientation, or 1 if there is none; invalid EXIF is ignored, as in browsers."""
    with suppress(Exception):
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
        if orientation in range(1, 9):
            return int(orientation)
    return 1


def colors_of(levels: Any) -> tuple[Color, ...]:
    """Return the colours of a flat palette [r, g, b, r, …]."""
    return tuple(zip(levels[0::3], levels[1::3], levels[2::3], strict=True))


def clear_indices(picture: Any) -> frozenset[int]:
    """Return the fully transparent indices of a palette, which Pillow gives as a number or as the alpha of each."""
    key = picture.info.get("transparency", b"") if picture.mode in ("P", "PA") else b""
    return frozenset([key] if isinstance(key, int) else [index for index, alpha in enumerate(key) if alpha == 0])


def from_png(picture: Any, name: object) -> Raster:
    """Return the image of a PNG file; Pillow keeps 8 of 16 bits of colours, and scales greys of 2 and 4 bits."""
    if picture.tell():  # a later frame of an animation
        return from_loaded(picture, name)
    file = picture.fp
    color, bits, bands = PNG_MODES[picture.tile[0].args]
    levels = picture.palette.getdata()[1] if color == "palette" else b""  # getpalette would load the pixels

    def load(top: int, bottom: int) -> NDArray[Any]:
        values = decode_png(file, picture.info, exact=bits < 8 or color == "palette")
        if bits < 8:
            values = np.asarray(values > 0, np.uint8) if bits == 1 else values // (255 // (2**bits - 1))
        return values.reshape(picture.height, picture.width, -1)[top:bottom, :, :bands]

    return Raster(
        name,
        picture.size[::-1],
        bands,
        2**bits - 1,
        color,
        load,
        # Without EXIF before the pixels, Pillow would decode them to search for it.
        orientation=lambda: orientation_of(picture) if "exif" in picture.info else 1,
        palette=colors_of(levels),
        clear=clear_indices(picture),
    )


def decode_png(file: BinaryIO, info: dict[Any, Any], exact: bool) -> NDArray[Any]:
    """Return the values of a PNG by libpng, or by Pillow if `exact` indices or few bits are needed; check them."""
    with decoding(file) as again:
        again.verify()  # also compares checksums of pixels
    file.seek(0)
    content = file.read()
    with decoding(file) as again:
        if b"eXIf" in content and "exif" not in info:  # after the pixels
            again.load()
            info |= again.info
        if not exact:
            return np.asarray(imagecodecs.png_decode(content))
        values = np.asarray(again)
        if again.info.get("interlace") or not values[-1].any():  # Pillow leaves missing rows 0
            imagecodecs.png_decode(content)  # raises
    return values


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image of a supported format and at most `MAX_PIXELS` by Pillow, which raises almost anything."""
    file.seek(0)
    with Image.open(file, formats=formats_of(Path(getattr(file, "name", "")))) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture


def formats_of(path: Path) -> tuple[str, ...]:
    """Return the formats of Pillow that a file may have.

    TGA has no signature, so that almost any damaged file could be one. HEIC needs a package.
    """
    suffix = path.suffix.lower()
    if suffix == ".tga":
        return (*PILLOW_FORMATS, "TGA")
    if suffix in HEIC_SUFFIXES and find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
        return (*PILLOW_FORMATS, "HEIF")
    return PILLOW_FORMATS


def from_pnm(picture: Any, name: object) -> Raster:
    """Return the image of a PGM or PPM file."""
    args = picture.tile[0].args
    if isinstance(args, tuple) and args[1] != 255:  # mode and largest value; Pillow would scale the values
        raise CrispsegError(f"{name} is a PNM with values up to {args[1]}; save it as a PNG")
    return from_loaded(picture, name)


def from_jpeg2000(picture: Any, name: object) -> Raster:
    """Return the image of a JPEG 2000 file; Pillow keeps 8 bits of colours, and scales greys of 9 to 15 bits."""
    file = picture.fp
    raster = from_loaded(picture, name)
    if raster.color == "palette":
        return raster
    file.seek(0)
    content = file.read()
    kind = content[content.index(b"\xff\x4f\xff\x51") + 42]  # of the values of the first channel: sign, and bits - 1
    bits = (kind & 0x7F) + 1
    if kind & 0x80:
        raise CrispsegError(f"{name} contains int{bits} values; save it with 8 or 16 bits, unsigned")

    def load(top: int, bottom: int) -> NDArray[Any]:
        values = np.asarray(imagecodecs.jpeg2k_decode(content))
        return values.reshape(picture.height, picture.width, -1)[top:bottom]

    return replace(raster, white=2**bits - 1, load=load)


PILLOW_READERS: dict[str, Callable[[Any, object], Raster]] = {
    "PNG": from_png,
    "PPM": from_pnm,
    "JPEG2000": from_jpeg2000,
    "TIFF": lambda picture, name: from_tiff(picture.fp, name, picture.tell() + 1),  # the current page
}
