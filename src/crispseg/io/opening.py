"""Images from files, PIL images and arrays in one form, with one-line error messages."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from crispseg.errors import CrispsegError, one_line
from crispseg.io.value_range import OF_IMAGE, Limits, ValueRange, percentile_range, sampled, to_8_bits
from crispseg.labels import Color, color_table

for library in ("tifffile", "imagecodecs"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # errors are reported once, by exceptions
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # from 89 million pixels on, see `MAX_PIXELS`

MAX_PIXELS = 2**27  # maximum number of pixels of a file, checked before decoding: 134 million, 400 MB as RGB
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # others run programs (EPS) or exceed their stated size (ICO)

COLORS: dict[str, tuple[int | str, ...]] = {
    "grey": (0, 1, 4, "1", "L", "LA", "I", "F"),
    "rgb": (2, "RGB", "RGBA", "RGBX"),
    "palette": (3, "P", "PA"),
    "bands": (),
}
"""Supported colours: their photometric interpretations in TIFFs, and their modes in Pillow."""

CUT = "cut it, or save it as a TIFF and segment it with 'crispseg predict' in tiles of 1024"
LOSSY = ", which may change values; save PNGs"
SEVERAL = "has several pages or frames, but only one would be read; save each as its own file"
FAULTS: Mapping[type[Exception], str] = {
    FileNotFoundError: "does not exist; check the path",
    NotADirectoryError: "does not exist; check the path",
    IsADirectoryError: "is a folder, not an image file; give a file",
    PermissionError: "cannot be read; check its permissions",
    Image.DecompressionBombError: f"claims more than {MAX_PIXELS:,} pixels; {CUT}",
    UnidentifiedImageError: "is not an image in a known format; convert it to PNG or JPEG",
}
"""Errors when a file is opened, with the rest of the message."""


def check_channels(name: object, color: str, bands: int, channels: int) -> None:
    """Raise a CrispsegError unless an image has these channels; 3 means RGB, which includes grey."""
    if color not in COLORS:
        raise CrispsegError(f"{name} has {color} colours; save it as grey or RGB")
    most = {"grey": 2, "rgb": 4, "bands": 0}.get(color, bands) if channels == 3 else channels
    if bands > most or (channels != 3 and (bands < most or color == "palette")):
        remedy = f"give other images, or train a model with model.in_chans {3 if bands == 1 else bands}"
        raise CrispsegError(f"{name} has {bands} channel(s), not {channels}; {remedy}")


@dataclass(frozen=True)
class Raster:
    """An image with its header and values, which are decoded on demand."""

    name: object  # for messages
    stored: tuple[int, int]  # height and width before EXIF orientation is applied
    bands: int  # number of channels, including alpha
    white: int  # largest value, such as 255
    color: str  # one of `COLORS`; others are refused
    load: Callable[[int, int], NDArray[Any]]  # decodes stored rows `[top, bottom)` as `(h, W, bands)`
    orientation: Callable[[], int] = lambda: 1  # EXIF orientation, 1 to 8; a PNG may have it after its pixels
    palette: tuple[Color, ...] = ()
    clear: frozenset[int] = frozenset()  # indices of a palette that are fully transparent
    lossy: str = ""  # error message if lossy compression may have changed values
    inverted: bool = False  # whether 0 is white in the file; `load` then inverts the values
    nodata: float | None = None  # value without data, from GDAL's metadata of a GeoTIFF
    place: tuple[float, ...] = ()  # map position of a GeoTIFF, see `map_position`
    limits: Limits | None = None  # values that become black and white in the whole image, if these are rows of it

    @property
    def visible(self) -> NDArray[np.bool_] | None:
        """`(H, W)` whether pixels are visible: at least half as opaque as any other; None without transparency."""
        if self.clear:
            return ~np.isin(self.values[..., 0], [*self.clear])
        alpha = self.values[..., -1]
        return alpha > alpha.max() // 2 if self.bands in (2, 4) else None

    @property
    def bit_depth(self) -> int:
        """Bits per channel."""
        return self.white.bit_length()

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` upright."""
        return self.stored[::-1] if self.orientation() >= 5 else self.stored

    @cached_property
    def values(self) -> NDArray[Any]:
        """Return the values of the file, upright, `(H, W, bands)`."""
        values, turn = self.load(0, self.stored[0]), self.orientation()
        values = values.swapaxes(0, 1) if turn >= 5 else values
        return values[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]

    def rows(self, top: int, bottom: int) -> Raster:
        """Return some rows as an image; a TIFF decodes only these rows."""
        size = bottom - top, self.stored[1]
        return replace(self, stored=size, load=lambda first, last: self.load(top + first, top + last))

    def check(self, channels: int) -> None:
        """Raise a CrispsegError unless it has these channels; 3 means RGB, which includes grey."""
        check_channels(self.name, self.color, self.bands, channels)

    def numbers(self, channels: int) -> NDArray[Any]:
        """Return the values of these channels as uint8 or uint16, and a palette as RGB; see `check` for errors."""
        self.check(channels)
        if self.color == "palette":
            return color_table(self.palette[:256]).take(self.values[..., 0], axis=0)
        return self._scaled(1 if channels == 3 and self.bands < 3 else channels)  # of 3 channels, none is alpha

    def pixels(self, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
        """Return the image as model input `(H, W, channels)`; arguments and errors are those of `read_image`."""
        values = self.numbers(channels)
        if value_range == "image":
            value_range = self.limits or percentile_range([sampled(values)], OF_IMAGE)
            values = values.astype(np.uint16)
        if values.dtype == np.uint16:
            known = value_range or ((0, self.white) if self.white < 0xFFFF else None)
            values = to_8_bits(values, known, self.name)
        return np.repeat(values, 3, axis=2) if values.shape[2] < channels else np.array(values, order="C")

    def plain(self) -> NDArray[Any]:
        """Return all bands in 8 or 16 bits, and palettes as RGB."""
        return self._scaled(self.bands) if self.color in ("grey", "rgb", "bands") else self.pixels()

    def _scaled(self, bands: int) -> NDArray[Any]:
        """Return the first bands as uint16, or as uint8 if they have up to 8 bits, which become 0 to 255."""
        if self.white > 255:
            return whole_numbers(self.values[..., :bands], self.name)
        return np.rint(np.arange(self.white + 1) / self.white * 255).astype(np.uint8).take(self.values[..., :bands])

    def labels(self, most: int = 0xFFFF, lossy: bool = False, in_color: bool = False) -> NDArray[Any]:
        """Return a mask as for `crispseg.io.images.read_mask`, and palette files as colours if `in_color`."""
        if self.lossy and not lossy:
            raise CrispsegError(self.lossy)
        in_color &= self.color == "palette"
        values = self.pixels() if in_color else self.values
        if (in_color or not self.palette) and (visible := self.visible) is not None:
            values = np.where(visible[..., None], values, 0)
        if in_color:
            return values
        if self.color in ("grey", "palette") and self.bands <= 2:
            values = values[..., 0]
            return values if values.dtype == np.uint8 else whole_numbers(values, self.name, most, "fiu")
        if self.color == "rgb" and self.bands <= 4 and self.bit_depth == 8:
            return np.array(values[..., :3], order="C")
        found = f"{self.bands} channels of {self.bit_depth} bits ({self.color})"
        raise CrispsegError(f"{self.name} has {found}; save masks as grey, palette or RGB PNG")


def whole_numbers(values: NDArray[Any], name: object, most: int = 0xFFFF, kinds: str = "iu") -> NDArray[Any]:
    """Return integers from 0 to `most` as uint16, or as int32 if needed; `kinds` are the allowed dtype kinds.

    Other values raise a CrispsegError.
    """
    if values.dtype.kind == "f" and (empty := int(np.isnan(values).sum())):
        found = f"{name} contains NaN in {100 * empty / values.size:.3g} % of its values"
        raise CrispsegError(f"{found}; save it with 8 or 16 bits, and in masks 255 for NaN")
    low, high = values.min(), values.max()
    if values.dtype.kind not in kinds or not (low >= 0 and high <= most) or (values % 1).any():
        found = f"{name} contains {values.dtype} values from {low} to {high}, not whole numbers from 0 to {most}"
        raise CrispsegError(f"{found}; save it with 8 or 16 bits, and in masks 255 for pixels without data")
    return values.astype(np.uint16 if high <= 0xFFFF else np.int32)


def from_array(values: NDArray[Any], name: str) -> Raster:
    """Return the image of a uint8 or uint16 array `(H, W)` or `(H, W, C)`: grey, RGB, alpha or bands."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, bands = values.shape
    color, white = {1: "grey", 2: "grey", 3: "rgb", 4: "rgb"}.get(bands, "bands"), 2 ** (8 * values.itemsize) - 1
    return Raster(name, (height, width), bands, white, color, lambda top, bottom: values[top:bottom])


def from_pillow(picture: Any, name: object) -> Raster:
    """Return the image of a PIL image; if not loaded, its file is decoded without it, because Pillow may lose bits."""
    file: Any = getattr(picture, "fp", None)
    tiles = getattr(picture, "tile", [])
    if tiles and (file is None or file.closed):
        raise CrispsegError(f"{name} is not loaded, and its file is closed; keep the file open, or give its path")
    if tiles and picture.format == "TIFF":
        return from_tiff(file, name, picture.tell())
    args: Any = tiles[0].args if tiles else ""
    raw, _, packed = str(args[0] if isinstance(args, tuple) else args).partition(";")  # packing of the values
    mode, bands, is_png = picture.mode, len(picture.getbands()), bool(tiles) and picture.format == "PNG"
    color = next((color for color, kinds in COLORS.items() if mode.partition(";")[0] in kinds), mode)
    few = {"2": 2, "4": 4}.get(packed) if is_png and mode == "L" else None
    white = 2 ** (few or (16 if mode.startswith("I;16") else {"1": 1, "I": 32, "F": 32}.get(mode, 8))) - 1
    if is_png and bands > 1 and packed == "16B":
        color, bands, white = "grey" if raw == "LA" else "rgb", len(raw), 0xFFFF
    if picture.format == "PPM" and isinstance(args, tuple) and args[1] != 255:  # Pillow would scale the values
        raise CrispsegError(f"{name} is a PNM with values up to {args[1]}; save it as a PNG")

    def load(top: int, bottom: int) -> NDArray[Any]:
        exact = white < 255 or color == "palette"
        values = png_values(file, picture.info, exact) if is_png and picture.tell() == 0 else np.asarray(picture)
        values = values // (255 // white) if few else values  # Pillow scales them to 0 to 255
        values = values.astype(np.uint8) if mode == "1" else values
        return values.reshape(picture.height, picture.width, -1)[top:bottom, :, :bands]

    def orientation() -> int:
        found: Any = None
        if not is_png or "exif" in picture.info:  # otherwise Pillow would decode a PNG to find it
            with suppress(Exception):  # invalid EXIF is ignored, as in browsers
                found = picture.getexif().get(ExifTags.Base.Orientation)
        return int(found) if found in range(1, 9) else 1

    shown: Any = []
    if color == "palette":  # getpalette would load the picture, which closes its file
        shown = picture.palette.getdata()[1] if is_png else picture.getpalette("RGB") or []
    palette = tuple(zip(shown[0::3], shown[1::3], shown[2::3], strict=True))
    key = picture.info.get("transparency", b"") if color == "palette" else b""
    clear = frozenset([key] if isinstance(key, int) else [index for index, alpha in enumerate(key) if alpha == 0])
    lossy = f"{name} has the format {picture.format}{LOSSY}" if picture.format in ("JPEG", "MPO", "WEBP") else ""
    return Raster(name, picture.size[::-1], bands, white, color, load, orientation, palette, clear, lossy)


def png_values(file: BinaryIO, info: dict[Any, Any], exact: bool) -> NDArray[Any]:
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


def from_tiff(file: BinaryIO, name: object, number: int | None = None) -> Raster:
    """Return a page of an open TIFF by its number from 0; None means the only page."""
    file.seek(0)
    tiff = tifffile.TiffFile(file)
    pages, page = tiff.pages, tiff.pages[number or 0]
    several = number is None and any(not other.subfiletype & 0b101 for other in islice(pages, 1, None))
    if len(pages) == 1 and page.is_final and (tiff.is_imagej or tiff.is_shaped):  # which may describe pages after it
        there = (tiff.filehandle.size - page.dataoffsets[0]) // page.nbytes
        several = min(tiff.series[0].size // page.size, there) > 1
    if several:
        raise CrispsegError(f"{name} {SEVERAL}")
    (height, width), bands, bits = (page.imagelength, page.imagewidth), page.samplesperpixel, page.bitspersample
    signed = page.dtype is not None and page.dtype.kind == "i" and (bits == 8 or page.photometric == 0)
    if page.dtype is None or not isinstance(bits, int) or signed:
        found = f"{name} contains {f'int{bits} values' if signed else f'values of {bits} bits'}"
        raise CrispsegError(f"{found}; save it with 8 or 16 bits, unsigned")
    is_image = page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS  # JPEG and similar, mostly lossy
    color = next((color for color, kinds in COLORS.items() if page.photometric in kinds), "")
    color = color or {5: "CMYK", 6: "YCbCr", 8: "CIELAB"}.get(page.photometric, f"other ({page.photometric})")
    plain_ycbcr = page.photometric == 6 and not is_image and (bands, bits) == (3, 8)
    plain_ycbcr = plain_ycbcr and tuple(page.tags.valueof("YCbCrSubSampling", (2, 2))) == (1, 1)
    decoded = page.photometric == 6 and (is_image or plain_ycbcr)  # to RGB, by tifffile or below
    if decoded or (color == "grey" and bands > 2):
        color = "rgb" if bands == 3 else "bands"

    def load(top: int, bottom: int) -> NDArray[Any]:
        planes, depth, _, _, samples = page.shaped
        length, across = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        if (top, bottom) == (0, height) and height * width > MAX_PIXELS:
            raise Image.DecompressionBombError
        if not page.is_final and length * across > MAX_PIXELS:
            raise CrispsegError(f"{name} has compressed strips of {length * across:,} pixels; save it in tiles")
        if depth > 1 or sum(page.databytecounts) < page.is_final * page.nbytes:
            raise ValueError(f"{depth} slices, {sum(page.databytecounts)} bytes")
        values = np.empty((planes, bottom - top, width, samples), np.uint8 if bits <= 8 else page.dtype)
        source = page.parent.filehandle
        if page.is_final:  # uncompressed contiguous rows
            for plane, rows in enumerate(values):
                start = page.dataoffsets[0] + (plane * height + top) * (page.nbytes // (planes * height))
                source.read_array(page.parent.byteorder + page.dtype.char, rows.size, start, out=rows)
        else:
            segments = np.arange(math.prod(page.chunked)).reshape(planes, -(-height // length), -1)
            indices = segments[:, top // length : -(-bottom // length)].ravel().tolist()
            starts, counts = ([each[index] for index in indices] for each in (page.dataoffsets, page.databytecounts))
            if any(start + count > source.size for start, count in zip(starts, counts, strict=True)):
                raise ValueError("the end of the file is missing")
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
            for data, index in source.read_segments(starts, counts, indices):
                part, (plane, _, y, x, _), (_, high, wide, _) = page.decode(data, index, **tables)
                into = values[plane, max(y - top, 0) : max(y + high - top, 0), x : x + wide]
                part = page.nodata if part is None else part[0, max(top - y, 0) :][: into.shape[0], : into.shape[1]]
                into[:] = part
        values = np.moveaxis(values, 0, 2).reshape(bottom - top, width, bands)  # (h, W, planes, bands of each)
        if plain_ycbcr:
            return np.asarray(Image.fromarray(values, "YCbCr").convert("RGB"))
        return np.asarray(2**bits - 1 - values if page.photometric == 0 else values)

    turn = page.tags.valueof(ExifTags.Base.Orientation, 1)
    nodata: float | None = None
    with suppress(TypeError, ValueError):  # no or invalid metadata
        nodata = float(page.tags.valueof("GDAL_NODATA"))
        nodata = 2**bits - 1 - nodata if page.photometric == 0 else nodata
    shown = page.colormap.T >> 8 if color == "palette" else np.zeros((0, 3))
    return Raster(
        *(name, (height, width), bands, 2**bits - 1, color, load, lambda: turn if turn in range(1, 9) else 1),
        palette=tuple(map(tuple, shown.tolist())),
        lossy=f"{name} is stored with lossy compression ({page.compression.name}){LOSSY}" if is_image else "",
        inverted=page.photometric == 0,
        nodata=nodata,
        place=map_position(page),
    )


def map_position(page: Any) -> tuple[float, ...]:
    """Return (a, b, c, d, e, f) of a TIFF page, or nothing: column x and row y are at (ax + by + c, dx + ey + f)."""
    matrix, scale, tie = (page.tags.valueof(code) for code in (34264, 33550, 33922))
    try:
        if matrix is not None:
            return (*matrix[:2], matrix[3], *matrix[4:6], matrix[7])
        x, y, _, right, up, _ = tie
        return scale[0], 0.0, right - x * scale[0], 0.0, -scale[1], up + y * scale[1]
    except (TypeError, ValueError, IndexError):  # no or invalid metadata
        return ()


@contextmanager
def opened(path: str | Path, whole: bool = False) -> Iterator[Raster]:
    """Open a TIFF or one of `FORMATS`, with one page or frame; `whole` checks all checksums of a PNG.

    Errors are those of `read_image`, also within the block.
    """
    with faults(Path(path)), Path(path).open("rb") as file:
        if file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            yield from_tiff(file, path)
            return
        if whole:
            with decoding(file) as picture:
                picture.verify()
        with decoding(file) as picture:
            if getattr(picture, "is_animated", False) and picture.format != "MPO":  # MPO has several photos of a camera
                raise CrispsegError(f"{path} {SEVERAL}")
            yield from_pillow(picture, path)


@contextmanager
def faults(name: object) -> Iterator[None]:
    """Convert any error of the block into a CrispsegError about `name`, a path or another name."""
    try:
        yield
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data decoders raise almost anything
        broken = f"is broken ({one_line(error)}); restore or remove it"
        what = next((what for kind, what in FAULTS.items() if isinstance(error, kind)), broken)
        if isinstance(name, Path) and name.is_file() and name.stat().st_size == 0:
            what = "is empty (0 bytes); restore or remove it"
        raise CrispsegError(f"{name} {what}") from None


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS` and at most `MAX_PIXELS` by Pillow, which raises almost anything."""
    file.seek(0)
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture
