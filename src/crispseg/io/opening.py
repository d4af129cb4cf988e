"""Opening pictures of the formats that are read, and what is wrong with one in a line."""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import SAMPLESPERPIXEL, ImageFileDirectory_v2

from crispseg.errors import CrispsegError, one_line

MAX_PIXELS = 2**27
"""A file that claims more pixels is refused before it is decoded: 134 million, 400 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Formats that are read, by Pillow's names. Of the others some start programs (EPS), and some hold a picture larger
than their header says (ICO)."""


ORIENTATION = 0x0112
"""EXIF's tag for how a picture is to be turned."""


class UnreadablePicture(CrispsegError):
    """A picture that cannot be decoded; `code` is one of the kinds of findings of `crispseg doctor`."""

    def __init__(self, message: str, code: str = "unreadable-file") -> None:  # a data worker's is made of its message
        super().__init__(message)
        self.code = code


class UnknownRange(ValueError):
    """Values of more than 16 bits, or fractions."""


@contextmanager
def opened(path: str | Path, whole: bool = False) -> Iterator[Image.Image]:
    """Open a picture of one of `FORMATS`, and turn every way in which a file can be bad into one line.

    With `whole`, the checksums of a PNG are compared with all of the file.

    Raises:
        CrispsegError: as for `read_image`, also for what goes wrong in the block.
    """
    path = Path(path)
    try:
        if not path.is_file() and stat.S_IFMT(path.stat().st_mode) != stat.S_IFDIR:
            raise ValueError("it is no file but a pipe or a device")  # which may never end, or never begin
        with path.open("rb") as file, decoding(file) as picture:
            if whole and picture.format == "PNG":
                compare_checksums(file)
            yield picture
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data Pillow's decoders raise almost anything
        code, reason = _fault(path, error)
        raise UnreadablePicture(f"{path} {reason}", code) from None


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open what should be a picture of one of `FORMATS`; on broken data Pillow raises almost anything.

    Raises:
        Image.DecompressionBombError: over `MAX_PIXELS`.
    """
    # `MAX_PIXELS` is the limit that counts here, not Pillow's warning about 89 million pixels and more. A filter set at
    # import may be lost, and one set again and again makes every other warning repeat itself.
    if not any(category is Image.DecompressionBombWarning for _, _, category, *_ in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture


def _fault(path: Path, error: Exception) -> tuple[str, str]:
    """The code of what is wrong with a picture whose reading raised an error; and, in words, that and the remedy."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing-file", "does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "unreadable-file", "is a folder, not an image file; give a file"
    if isinstance(error, PermissionError):
        return "no-permission", "cannot be read; check that it is a file and its permissions"
    if isinstance(error, Image.DecompressionBombError):
        return "too-large", (
            f"claims more than {MAX_PIXELS:,} pixels; cut it into smaller images, or save it as a TIFF and segment it "
            "by 'crispseg predict' in tiles of 1024"
        )
    if path.is_file() and path.stat().st_size == 0:
        return "empty-file", "is empty (0 bytes); restore or remove it"
    if isinstance(error, UnidentifiedImageError):
        if (channels := _tiff_channels(path)) > 3:
            return "channel-missing", (
                f"has {channels} channels, which only models of as many take: train with model.in_chans {channels}"
            )
        return "no-image-format", "is not an image in a known format; convert it to PNG or JPEG"
    if isinstance(error, UnknownRange):
        return "value-range-unknown", f"holds {error}"
    return "unreadable-file", f"is broken ({one_line(error)}); restore or remove it"


def _tiff_channels(path: Path) -> int:
    """How many channels a TIFF says that it has; 0 where it is none."""
    with suppress(Exception), path.open("rb") as file:  # on broken headers Pillow raises almost anything
        head = file.read(8)
        directory = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)  # 43 is BigTIFF
        file.seek(directory.next)
        directory.load(file)
        return int(directory.get(SAMPLESPERPIXEL, 1))
    return 0


def raw_mode(picture: Image.Image) -> str:
    """How Pillow will unpack the values of a file that it has not loaded; empty where that is not known."""
    args = picture.tile[0].args if isinstance(picture, ImageFile.ImageFile) and picture.tile else None
    return str(args[0] if isinstance(args, tuple) else args or "")


PNG = b"\x89PNG\r\n\x1a\n"
"""How a file begins."""
BLOCK = 2**20
"""Bytes that are read or compressed at a time."""
RGB, INDEXED, UP = 2, 3, 2
"""A PNG's numbers for pixels of RGB, for those of a palette, and for rows which hold differences to the row above."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""Chunks of a PNG that say nothing about its pixels."""


def compare_checksums(file: BinaryIO) -> None:
    """Go through the chunks of a PNG, whose place in the file stays. Pillow skips the checksums of pixels and behind.

    Raises:
        ValueError: the checksum of a chunk, but for text, is not that of its content; or the end is missing.
    """
    place = file.tell()
    try:
        file.seek(len(PNG))
        while len(head := file.read(8)) == 8:
            left, kind = int.from_bytes(head[:4]), head[4:]
            checksum = zlib.crc32(kind)
            while left and (content := file.read(min(left, BLOCK))):
                checksum, left = zlib.crc32(content, checksum), left - len(content)
            if left or len(stated := file.read(4)) < 4:
                break
            if kind not in TEXTS and checksum != int.from_bytes(stated):
                raise ValueError(f"the checksum of its chunk {kind.decode('ascii', 'replace')} is another")
            if kind == b"IEND":
                return
        raise ValueError("its end is missing")
    finally:
        file.seek(place)


def write_png(file: BinaryIO, pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> None:
    """Write an `(H, W, 3)` RGB picture, or `(H, W)` numbers of the colours of a palette `(256, 3)`, as a PNG.

    A photograph takes a third of Pillow's time at about as many bytes, labels a third at three quarters of the bytes.
    What makes it fast is one filter for all rows, and that zlib looks for runs of one byte alone.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    file.write(PNG)
    kind = RGB if palette is None else INDEXED
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    if palette is not None:
        _write_chunk(file, b"PLTE", palette.tobytes())
    step = max(BLOCK // rows.shape[1], 1)
    for top in range(0, height, step):
        part = rows[top : top + step]
        filtered = np.empty((len(part), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = UP
        np.subtract(part[1:], part[:-1], out=filtered[1:, 1:])
        np.subtract(part[0], rows[top - 1] if top else 0, out=filtered[0, 1:])
        if packed := packer.compress(filtered.data):
            _write_chunk(file, b"IDAT", packed)
    _write_chunk(file, b"IDAT", packer.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
