"""Images of every origin, files, PIL images and arrays, in one form; and what is wrong with one, in a line."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from crispseg.errors import CrispsegError, one_line
from crispseg.io.value_range import ValueRange, to_8_bits
from crispseg.labels import Color, color_table

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said once, as an error

MAX_PIXELS = 2**27
"""A file that claims more pixels is refused before it is decoded: 134 million, 400 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
"""Formats that Pillow reads. Others start programs (EPS), or are larger than their header says (ICO)."""

COLORS = {"grey": (0, 1, 4), "rgb": (2,), "palette": (3,), "cmyk": (5,), "bands": ()}
"""The colours that are read, and their photometric interpretations in TIFFs."""
MODES = {"grey": ("1", "L", "LA", "I", "F"), "rgb": ("RGB", "RGBA", "RGBX"), "palette": ("P", "PA"), "cmyk": ("CMYK",)}
"""The same by Pillow's modes."""


CUT = "cut it, or save it as a TIFF and segment it by 'crispseg predict' in tiles of 1024"
FAULTS: tuple[tuple[type[Exception], str, str], ...] = (
    (FileNotFoundError, "missing-file", "does not exist; check the path"),
    (NotADirectoryError, "missing-file", "does not exist; check the path"),
    (IsADirectoryError, "unreadable-file", "is a folder, not an image file; give a file"),
    (PermissionError, "no-permission", "cannot be read; check its permissions"),
    (Image.DecompressionBombError, "too-large", f"claims more than {MAX_PIXELS:,} pixels; {CUT}"),
    (UnidentifiedImageError, "no-image-format", "is not an image in a known format; convert it to PNG or JPEG"),
)
"""Errors of opening a file, their code, and the rest of the message."""


class UnreadablePicture(CrispsegError):
    """A picture that cannot be decoded; `code` is one of the kinds of findings of `crispseg doctor`."""

    def __init__(self, message: str, code: str = "unreadable-file") -> None:  # a data worker's is made of its message
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Raster:
    """An image: what its header says, and its values, which are decoded when they are asked for.

    Args:
        name: for messages.
        stored: height and width before it is turned upright.
        bands: channels, with alpha.
        white: the largest value, such as 255; smaller than all bits of a channel allow in some PNMs.
        color: one of `COLORS` or another, which is refused.
        load: decodes the stored values, `(H, W, bands)`.
        orientation: that of EXIF, 1 to 8; a PNG may have it behind its pixels.
        palette: the colours of a palette.
        lossy: why the values may not be those that were saved.
    """

    name: object
    stored: tuple[int, int]
    bands: int
    white: int
    color: str
    load: Callable[[], NDArray[Any]]
    orientation: Callable[[], int] = lambda: 1
    palette: tuple[Color, ...] = ()
    lossy: str = ""

    @property
    def bit_depth(self) -> int:
        """Bits a channel."""
        return self.white.bit_length()

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` upright."""
        return self.stored[::-1] if self.orientation() >= 5 else self.stored

    @cached_property
    def values(self) -> NDArray[Any]:
        """The values as they are in the file, upright, `(H, W, bands)`."""
        return upright(self.load(), self.orientation())

    def check(self, channels: int) -> None:
        """Raise an UnreadablePicture unless it has so many channels: 3 for RGB, which grey becomes, or others."""
        usual = (channels, self.bands, self.bit_depth) == (3, 4, 8)
        if self.color not in COLORS or (self.color == "cmyk" and not usual):
            raise UnreadablePicture(f"{self.name} has {self.color} colours; save it as grey or RGB", "channel-missing")
        most = {"grey": 2, "rgb": 4, "bands": 0}.get(self.color, self.bands) if channels == 3 else channels
        if self.bands > most or (channels != 3 and (self.bands < most or self.color == "palette")):
            remedy = f"give other images, or train a model with model.in_chans {3 if self.bands == 1 else self.bands}"
            found = f"{self.name} has {self.bands} channel(s), not {channels}"
            raise UnreadablePicture(f"{found}; {remedy}", "channel-missing")

    def kept(self, channels: int) -> NDArray[Any]:
        """Return the upright values of so many channels, see `check`; without alpha."""
        self.check(channels)
        if self.color == "cmyk":
            return self.values
        return self.values[..., : 1 if channels == 3 and self.bands < 3 else channels]

    def pixels(self, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
        """Return the image as a model takes it, `(H, W, channels)`.

        Args:
            channels: 3 for RGB: alpha is dropped, and grey, palette and CMYK become RGB; or as many as there are.
            value_range: of more than 8 bits a channel, see `to_8_bits`.

        Raises:
            UnreadablePicture: another number of channels, or values that are no whole numbers of 16 bits.
        """
        values = self.kept(channels)
        if self.color == "palette":
            return color_table(self.palette[:256]).take(values[..., 0], axis=0)
        if self.color == "cmyk":
            return np.array(Image.frombytes("CMYK", values.shape[1::-1], values.tobytes()).convert("RGB"))
        if self.bit_depth > 8:
            known = value_range or ((0, self.white) if self.white < 0xFFFF else None)
            values = to_8_bits(whole_numbers(values, self.name), known, self.name)
        elif self.white < 255:
            values = np.rint(np.arange(self.white + 1) / self.white * 255).astype(np.uint8).take(values)
        return np.repeat(values, 3, axis=2) if values.shape[2] < channels else np.array(values, order="C")

    def labels(self, most: int = 0xFFFF, lossy: bool = False) -> NDArray[Any]:
        """Return the values of a mask, or raise an UnreadablePicture, as `crispseg.io.images.read_mask` does."""
        if self.lossy and not lossy:
            raise UnreadablePicture(f"{self.name} {self.lossy}, which may change values; save PNGs", "lossy-mask")
        if self.color in ("grey", "palette") and self.bands <= 2:
            values: NDArray[Any] = self.values[..., 0]
            return values if values.dtype == np.uint8 else whole_numbers(values, self.name, most, "fiu")
        if self.color == "rgb" and self.bands <= 4 and self.bit_depth == 8:
            return np.array(self.values[..., :3], order="C")
        found = f"{self.bands} channels of {self.bit_depth} bits ({self.color})"
        raise UnreadablePicture(f"{self.name} has {found}; save masks as grey, palette or RGB PNG", "unusable-mask")


def whole_numbers(values: NDArray[Any], name: object, most: int = 0xFFFF, kinds: str = "iu") -> NDArray[Any]:
    """Return whole numbers from 0 to `most`, of some kinds of types, as uint16, or as int32 if some are larger.

    Raises:
        UnreadablePicture: they are none.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind not in kinds or not (low >= 0 and high <= most) or (values % 1).any():
        found = f"{name} holds {values.dtype} values from {low} to {high}, not whole numbers from 0 to {most}"
        raise UnreadablePicture(f"{found}; save it with 8 or 16 bits", "value-range-unknown")
    return values.astype(np.uint16 if high <= 0xFFFF else np.int32)


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `(H, W, …)` as EXIF's orientation says."""
    values = values.swapaxes(0, 1) if orientation >= 5 else values
    return values[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def from_array(values: NDArray[Any], name: str) -> Raster:
    """Return an array `(H, W)` or `(H, W, C)` of uint8 or uint16: grey, RGB with or without alpha, or other bands."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, bands = values.shape
    color, bits = {1: "grey", 3: "rgb", 4: "rgb"}.get(bands, "bands"), 8 * values.itemsize
    return Raster(name, (height, width), bands, 2**bits - 1, color, lambda: values)


def from_pillow(picture: Image.Image, name: object, file: Path | None = None) -> Raster:
    """Return a PIL image, which need not be loaded; of colours of 16 bits Pillow gives 8, so OpenCV reads the file."""
    args: Any = picture.tile[0].args if isinstance(picture, ImageFile.ImageFile) and picture.tile else None
    raw = str(args[0] if isinstance(args, tuple) else args or "")  # how Pillow will unpack the values
    mode, bands = picture.mode, len(picture.getbands())
    color = next((color for color, modes in MODES.items() if mode.partition(";")[0] in modes), mode)
    few = {"2": 2, "4": 4}.get(raw.partition(";")[2]) if picture.format == "PNG" and mode in "LP" else None
    bits = few or (16 if mode.startswith("I;16") else {"1": 1, "I": 32, "F": 32}.get(mode, 8))
    is_deep = file is not None and bands > 1 and ";16" in raw
    if is_deep:
        color, bits, bands = "rgb", 16, 4 if mode[-1] == "A" else 3
    is_pnm = picture.format == "PPM" and isinstance(args, tuple) and mode != "F"
    white: int = args[1] if is_pnm else 2**bits - 1

    def load() -> NDArray[Any]:
        if is_pnm:
            return pnm_values(picture, white)
        picture.load()  # raises where the file is broken, in which OpenCV may leave zeros
        if is_deep:
            return np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))[..., [2, 1, 0, 3][:bands]]
        values = np.array(picture)
        values = values.astype(np.uint8) if mode == "1" else values
        if mode == "L" and few:  # which Pillow spreads over 0 to 255
            values = values // (255 // (2**few - 1))
        return values if values.ndim == 3 else values[..., None]

    def orientation() -> int:
        if picture.format == "PNG" and "exif" not in picture.info:  # Pillow would decode the file to find some
            return 1
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1

    shown = (picture.getpalette("RGB") if color == "palette" else None) or []
    palette = tuple(zip(shown[0::3], shown[1::3], shown[2::3], strict=True))
    size = picture.height, picture.width
    lossy = f"is of the format {picture.format}" if picture.format in ("JPEG", "MPO", "WEBP") else ""
    return Raster(name, size, bands, white, color, load, orientation, palette, lossy)


def pnm_values(picture: Any, white: int) -> NDArray[Any]:
    """Return the values `(H, W, bands)` of a PGM or PPM as they are stored; Pillow would scale them to 255 or 65535."""
    codec, _, start, _ = picture.tile[0]
    picture.fp.seek(start)
    content, count = picture.fp.read(), picture.height * picture.width * len(picture.getbands())
    if codec == "ppm_plain":
        found = np.array([*map(int, re.sub(rb"#[^\r\n]*", b"", content).split()[:count])])
    else:
        found = np.frombuffer(content, np.uint8 if white < 256 else ">u2")[:count]
    if len(found) < count or not 0 <= found.min() <= found.max() <= white:
        raise ValueError(f"{len(found)} of {count} values up to {white}")
    return found.reshape(picture.height, picture.width, -1).astype(np.uint8 if white < 256 else np.uint16)


def from_tiff(file: BinaryIO, name: object) -> Raster:
    """Return the first page of an open TIFF."""
    page: Any = tifffile.TiffFile(file).pages.first
    (height, width), bands, bits = (page.imagelength, page.imagewidth), page.samplesperpixel, page.bitspersample
    if page.dtype is None or not isinstance(bits, int) or page.dtype == np.int8:
        raise ValueError(f"{bits} bits a channel")
    is_image = page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS  # JPEG and its kin, mostly lossy
    color = next((color for color, kinds in COLORS.items() if page.photometric in kinds), str(page.photometric))
    if (page.photometric == 6 and is_image) or (color == "grey" and bands == 3):  # YCbCr is decoded to RGB
        color = "rgb"
    end_of_file = file.seek(0, 2)

    def load() -> NDArray[Any]:
        if height * width > MAX_PIXELS:
            raise Image.DecompressionBombError
        if any(start + count > end_of_file for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError("its end is missing")
        values = np.moveaxis(page.asarray(squeeze=False, maxworkers=1)[:, 0], 0, 2)  # (H, W, planes, bands of each)
        values = values.reshape(height, width, bands).astype(np.uint8 if bits <= 8 else page.dtype, copy=False)
        return np.asarray(2**bits - 1 - values if page.photometric == 0 else values)

    turn = page.tags.valueof(ExifTags.Base.Orientation, 1)
    shown = page.colormap.T >> 8 if color == "palette" else np.zeros((0, 3))
    return Raster(
        *(name, (height, width), bands, 2**bits - 1, color, load, lambda: turn if turn in range(1, 9) else 1),
        palette=tuple(map(tuple, shown.tolist())),
        lossy=f"is stored with lossy compression ({page.compression.name})" if is_image else "",
    )


@contextmanager
def opened(path: str | Path, whole: bool = False) -> Iterator[Raster]:
    """Open a TIFF or one of `FORMATS`, and turn every way in which a file can be bad into one line.

    With `whole`, all checksums of a PNG are compared, of which Pillow skips those of pixels.

    Raises:
        CrispsegError: as for `read_image`, also for what goes wrong in the block.
    """
    path = Path(path)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            is_tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
            file.seek(0)
            if whole and not is_tiff:
                with decoding(file) as picture:
                    picture.verify()
                file.seek(0)
            yield from_tiff(file, path) if is_tiff else from_pillow(stack.enter_context(decoding(file)), path, path)
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data decoders raise almost anything
        found = (fault[1:] for fault in FAULTS if isinstance(error, fault[0]))
        code, what = next(found, ("unreadable-file", f"is broken ({one_line(error)}); restore or remove it"))
        if path.is_file() and path.stat().st_size == 0:
            code, what = "empty-file", "is empty (0 bytes); restore or remove it"
        raise UnreadablePicture(f"{path} {what}", code) from None


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open what should be a picture of one of `FORMATS` by Pillow; on broken data it raises almost anything.

    Raises:
        Image.DecompressionBombError: over `MAX_PIXELS`.
    """
    # Pillow warns from 89 million pixels on. A filter set at import may be lost, and one set repeatedly makes every
    # other warning repeat itself.
    if not any(category is Image.DecompressionBombWarning for _, _, category, *_ in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture
