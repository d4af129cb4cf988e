"""Pages of TIFFs as rasters, by tifffile."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

from crispseg.errors import CrispsegError
from crispseg.io.files import regular_file
from crispseg.io.raster import LOSSY, Raster

MAX_PIXELS = 2**27  # pixels of an image that is read as a whole, before it is decoded; 400 MB as RGB
SEVERAL = "has several pages or frames, but only one would be read; save each as its own file"

PIXEL_TAGS = {
    *("ImageWidth", "ImageLength", "BitsPerSample", "Compression", "FillOrder", "StripOffsets", "SamplesPerPixel"),
    *("RowsPerStrip", "StripByteCounts", "PlanarConfiguration", "Predictor", "ColorMap", "TileWidth", "TileLength"),
    *("TileOffsets", "TileByteCounts", "ExtraSamples", "SampleFormat"),
}
"""Tags that decide how the values of a page are stored, and what they mean."""
MINISWHITE, YCBCR = 0, 6
PHOTOMETRICS = {0: "grey", 1: "grey", 2: "rgb", 3: "palette", 4: "grey", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
ALPHA = ((1,), (2,))  # extra sample of grey with alpha; others are bands
STACK_AXES = ("Z", "T", "TZ", "ZT")  # depth and time, by metadata of ImageJ, OME or tifffile
SMALLER_OR_MASK = 0b101  # bits of the type of a page that is a smaller copy or a mask of another


def from_tiff(file: BinaryIO, name: object, number: int | None = None) -> Raster:
    """Return a page of an open TIFF by its number from 1; None means the only page."""
    file.seek(0)
    tiff = tifffile.TiffFile(file)
    if number is None and has_more_pages(tiff):
        raise CrispsegError(f"{name} {SEVERAL}")
    page = tiff.pages[(number or 1) - 1]
    check_tags(page, file)
    check_values(page, name)
    compressed_image = page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS  # JPEG and similar, mostly lossy
    turn = page.tags.valueof(ExifTags.Base.Orientation, 1)
    color = color_of(page)
    return Raster(
        name,
        (page.imagelength, page.imagewidth),
        page.samplesperpixel,
        2**page.bitspersample - 1,
        color,
        lambda top, bottom: read_page(page)[top:bottom],
        orientation=lambda: turn if turn in range(1, 9) else 1,
        # Levels of palettes have 16 bits in the file.
        palette=tuple(map(tuple, (page.colormap.T >> 8).tolist())) if color == "palette" else (),
        lossy=f"{name} is stored with lossy compression ({page.compression.name}){LOSSY}" if compressed_image else "",
        inverted=page.photometric == MINISWHITE,
        nodata=nodata_of(page),
        place=map_position(page),
    )


def stack_pages(path: Path) -> int:
    """Return the number of pages of a z-stack or a series in time, else 0; pages of unknown axes may be channels."""
    with suppress(Exception), regular_file(path).open("rb") as file:  # broken files are reported when they are read
        tiff = tifffile.TiffFile(file)
        (series,) = tiff.series
        axes = series.axes.removesuffix("S").removesuffix("YX")
        if axes in STACK_AXES and math.prod(series.shape[: len(axes)]) == len(tiff.pages):
            return len(tiff.pages)
    return 0


def has_more_pages(tiff: Any) -> bool:
    """Return whether a file has pages after the first that are not smaller copies or masks of it."""
    pages, page = tiff.pages, tiff.pages[0]
    if any(not other.subfiletype & SMALLER_OR_MASK for other in islice(pages, 1, None)):
        return True
    if len(pages) > 1 or not page.is_final or not (tiff.is_imagej or tiff.is_shaped):
        return False
    # Large files of ImageJ and tifffile describe pages that have no header.
    described = tiff.series[0].size // page.size
    stored = (tiff.filehandle.size - page.dataoffsets[0]) // page.nbytes
    return bool(min(described, stored) > 1)


def check_tags(page: Any, file: BinaryIO) -> None:
    """Raise a ValueError if a tag about pixels is broken, for which tifffile takes a default, or has no colours."""
    form = page.parent.tiff
    file.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    entries = file.read(count * form.tagsize)
    starts = range(0, len(entries), form.tagsize)
    codes = {struct.unpack_from(f"{form.byteorder}H", entries, start)[0] for start in starts}
    names = {tifffile.TIFF.TAGS.get(code) for code in codes}
    if lost := (names & PIXEL_TAGS | {"PhotometricInterpretation"}) - {tag.name for tag in page.tags}:
        raise ValueError(f"its tag {min(lost)} is broken or missing")


def check_values(page: Any, name: object) -> None:
    """Raise a CrispsegError for types of values that tifffile or a model cannot read."""
    bits = page.bitspersample
    is_known = page.dtype is not None and isinstance(bits, int)
    if not is_known or (page.dtype.kind == "i" and (bits == 8 or page.photometric == MINISWHITE)):
        raise CrispsegError(f"{name} contains {page.dtype} values of {bits} bits; save it with 8 or 16 bits, unsigned")


def color_of(page: Any) -> str:
    """Return the colours of a decoded page; several grey channels are bands."""
    color = PHOTOMETRICS.get(page.photometric, f"other ({page.photometric})")
    becomes_rgb = page.photometric == YCBCR and page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS
    has_alpha = page.samplesperpixel == 2 and page.extrasamples in ALPHA
    if becomes_rgb or (color == "grey" and page.samplesperpixel > 1 and not has_alpha):
        return "rgb" if page.samplesperpixel == 3 else "bands"
    return color


def nodata_of(page: Any) -> float | None:
    """Return the value without data, or None; an inverted page has it inverted."""
    with suppress(TypeError, ValueError):  # no or invalid metadata
        nodata = float(page.tags.valueof("GDAL_NODATA"))
        return 2**page.bitspersample - 1 - nodata if page.photometric == MINISWHITE else nodata
    return None


def map_position(page: Any) -> tuple[float, ...]:
    """Return (a, b, c, d, e, f) of a TIFF page, or nothing: column x and row y are at (ax + by + c, dx + ey + f)."""
    matrix, scale, tie = map(page.tags.valueof, ("ModelTransformationTag", "ModelPixelScaleTag", "ModelTiepointTag"))
    try:
        if matrix is not None:
            return (*matrix[:2], matrix[3], *matrix[4:6], matrix[7])
        x, y, _, right, up, _ = tie
        return scale[0], 0.0, right - x * scale[0], 0.0, -scale[1], up + y * scale[1]
    except (TypeError, ValueError, IndexError):  # no or invalid metadata
        return ()


def read_page(page: Any) -> NDArray[Any]:
    """Decode a page as `(H, W, bands)`, with 0 for black; rows that are missing in the file raise an error."""
    planes, depth, height, width, samples = page.shaped
    if height * width > MAX_PIXELS:
        raise Image.DecompressionBombError
    ends = np.add(page.dataoffsets, page.databytecounts)
    contiguous_bytes = page.nbytes if page.is_final else 0
    if depth > 1 or height * width == 0:
        raise ValueError(f"{depth} slices of {width}×{height} pixels")
    if ends.max(initial=0) > page.parent.filehandle.size or sum(page.databytecounts) < contiguous_bytes:
        raise ValueError("the end of the file is missing")
    values = page.asarray(maxworkers=1).reshape(planes, height, width, samples)
    values = np.moveaxis(values, 0, 2).reshape(height, width, planes * samples)
    values = values.astype(np.uint8 if values.dtype == bool else values.dtype.newbyteorder("="), copy=False)
    return black_is_zero(values, page.photometric == MINISWHITE, page.bitspersample)


def black_is_zero(values: NDArray[Any], inverted: bool, bits: int) -> NDArray[Any]:
    """Return values whose black is 0, from those of a file whose white is 0 if `inverted`."""
    return np.asarray(2**bits - 1 - values) if inverted else values
